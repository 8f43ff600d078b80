"""Which label-free measure of the training curves orders checkpoints as labelled tasks do?

    python benchmarks/label_free.py [--slides INDEX…] [--tiles TASK…] [--recipes NAME…] [--quick] [--json] [--out FILE]

Trains a small model by each recipe below on the slides of each INDEX (tissue/COHORT/index.parquet), keeps checkpoints
on the way, classifies TASKs with each (a tile task of config/tasks.yaml, or a folder of labelled tiles), and states the
rank correlation (Spearman) of every measure with the mean balanced accuracy: within runs, which is what a curve is read
for, and over all checkpoints. About two minutes a recipe and index on two cores.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from tiles_support.page import add_out, check_out, deliver, table
from tqdm import tqdm

from midnight.config import Evaluation, Mlflow, load_recipe, merge
from midnight.evaluate.entries import Model
from midnight.evaluate.quick import quick_check
from midnight.logs import setup
from midnight.ssl.launch import entry as launch
from midnight.ssl.launch.job import FILE, Job, write_job
from midnight.ssl.monitor.outcome import read_records
from midnight.tissue.index import read_index

MEASURES = ("probe_rank", "probe_decay", "agreement", "places", "separation", "mixing", "loss", "rank")
DEMO = Path("results/demo/tissue/demo/index.parquet")
TASKS = ["demo-bach", "demo-crc", "demo-pcam-10shot"]
EVERY = 50
COMMON = {"training": {"checkpoint_every": EVERY, "keep_every": EVERY, "probe_every": EVERY, "log_every": 10}}
QUICK = {"training": {"iterations": 8, "checkpoint_every": 2, "keep_every": 2, "probe_every": 2, "log_every": 2}}
NO_COLOUR = {"jitter_p": 0.0, "grayscale_p": 0.0, "solarize_p": 0.0}
RECIPES: dict[str, dict[str, Any]] = {
    "demo": {},
    "other seed": {"seed": 1},
    "stain is seen": {"tiles": {"hed_sigma": 0.0}, "crops": NO_COLOUR},
    "no regularizer": {"loss": {"regularizer": "none"}},
    "warm targets": {"loss": {"teacher_temperature": [0.07, 0.07]}},
    "rate ten times lower": {"optimizer": {"base_lr": 1e-4}},
}


@dataclass(frozen=True)
class Point:
    """A checkpoint: of which run, its micro-steps, what was measured, and the balanced accuracy on each task."""

    run: str
    step: int
    measured: Mapping[str, float]
    scores: Mapping[str, float]

    @property
    def score(self) -> float:
        """Mean over tasks."""
        return sum(self.scores.values()) / len(self.scores)


def train_run(index: Path, name: str, folder: Path, quick: bool) -> None:
    """Train one recipe on the slides of an index."""
    recipe = load_recipe("demo", merge(merge(COMMON, QUICK if quick else {}), RECIPES[name]))
    cohorts = {index.parent.name: (index, 1.0)}
    job = Job(recipe, cohorts, folder, None, Mlflow(tracking_uri="off"), folder.parent, "demo")
    write_job(folder / FILE, job)  # which evaluating a checkpoint reads
    launch.run(job)


def score(model: Path, tasks: Sequence[str], data_root: Path) -> dict[str, float]:
    """Mean of nearest neighbours' and the linear probe's balanced accuracy of CLS, by task."""
    folders = {Path(task).name: task for task in tasks if Path(task).is_dir()}
    evaluation = Evaluation(data_root=str(data_root), folders=folders, accelerator="cpu", workers=0)
    entry = Model("weights", model.name, [], path=str(model), name=model.name)
    out = {}
    for task in tasks:
        found = quick_check(entry, Path(task).name if Path(task).is_dir() else task, evaluation).scores["cls"]
        out[Path(task).name] = (found["knn"] + found["linear"]) / 2
    return out


def points_of(run: str, folder: Path, tasks: Sequence[str], data_root: Path) -> list[Point]:
    """Every checkpoint of a run."""
    records = {int(record["step"]): record for record in read_records(folder / "metrics.jsonl")}
    out = []
    for path in sorted((folder / "checkpoints").glob("step_*")):
        step = int(path.name.removeprefix("step_"))
        measured = {name: float(records[step][name]) for name in MEASURES if records[step].get(name) is not None}
        out.append(Point(run, step, measured, score(path, tasks, data_root)))
    return out


def correlation(points: Sequence[Point], name: str, task: str | None = None) -> float:
    """Spearman's, of a measure with one task's score or the mean."""
    known = [point for point in points if name in point.measured]
    scores = [point.score if task is None else point.scores[task] for point in known]
    return float(spearmanr([point.measured[name] for point in known], scores).statistic)


def result_rows(points: Sequence[Point]) -> list[dict[str, Any]]:
    """A row per measure: the median within runs, over all checkpoints, and over all by task."""
    runs = sorted({point.run for point in points})
    rows = []
    for name in MEASURES:
        within = [correlation([point for point in points if point.run == run], name) for run in runs]
        row = {"measure": name, "within runs, median": np.nanmedian(within), "lowest": np.nanmin(within)}
        by_task = {task: correlation(points, name, task) for task in points[0].scores}
        rows.append(row | {"over all": correlation(points, name)} | by_task)
    return [{name: _short(value) for name, value in row.items()} for row in rows]


def _short(value: Any) -> Any:
    return f"{value:+.2f}" if isinstance(value, float) else value


def run_rows(points: Sequence[Point]) -> list[dict[str, str]]:
    """A row per run: from its first to its last checkpoint."""
    rows = []
    for run in sorted({point.run for point in points}):
        first, *_, last = [point for point in points if point.run == run]
        ends = {name: f"{first.measured[name]:.3g} → {last.measured[name]:.3g}" for name in MEASURES}
        rows.append({"run": run, "balanced accuracy": f"{first.score:.3f} → {last.score:.3f}"} | ends)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", nargs="+", type=Path, default=[DEMO], metavar="INDEX", help="index.parquet")
    parser.add_argument("--tiles", nargs="+", default=TASKS, metavar="TASK", help="a tile task, or a folder")
    parser.add_argument("--data-root", type=Path, default=Path("results/demo/data/benchmarks"), help="of the tasks")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES)[:4], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    add_out(parser)
    options = parser.parse_args(arguments)
    check_out(options)
    setup()
    if gone := [
        record.path for index in options.slides for record in read_index(index) if not Path(record.path).exists()
    ]:
        parser.error(f"{gone[0]}: not found; run this in the folder where the workflow ran")
    points: list[Point] = []
    with tempfile.TemporaryDirectory(prefix="midnight-label-free-") as scratch:
        jobs = [(index, name) for index in options.slides for name in options.recipes]
        for number, (index, name) in enumerate(tqdm(jobs, unit="run")):
            folder = Path(scratch, f"run-{number}")
            train_run(index, name, folder, options.quick)
            points += points_of(f"{index.parent.name}: {name}", folder, options.tiles, options.data_root)
    rows = result_rows(points)
    best = max(rows, key=lambda row: float(row["within runs, median"]))
    line = (
        f"{len(points)} checkpoints: {best['measure']} orders those of a run best (Spearman, median "
        f"{best['within runs, median']}; over all {best['over all']})."
    )
    parts = {"Rank correlation with balanced accuracy": table(rows), "Runs": table(run_rows(points))}
    deliver(
        "Label-free measures against labelled tasks",
        line,
        parts,
        {"points": list(map(asdict, points))},
        options.out,
        options.json,
    )


if __name__ == "__main__":
    main()
