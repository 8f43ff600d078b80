"""Both sides as fresh processes: seconds by the wall clock and of CPU, and the scores."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from midnight.errors import MidnightError
from midnight.evaluate.records import read_record

from . import peer
from .workspace import SEED, Workspace

SUPPORT = Path(__file__).resolve().parents[1]
Scores = dict[tuple[str, str], list[float]]


@dataclass(frozen=True)
class Reading:
    """A process: seconds by the wall clock, of CPU (with its children), and the last line that it printed."""

    wall: float
    cpu: float
    told: str


def run_process(arguments: list[str], folder: Path, environment: Mapping[str, str]) -> Reading:
    """Run Python with these arguments in `folder`; what it prints goes to a file there.

    Raises:
        MidnightError: it failed; gives the end of what it printed.
    """
    log, paths = folder / f"{len(list(folder.glob('*.log')))}.log", os.environ.get("PYTHONPATH", "")
    environment = {**environment, "PYTHONPATH": f"{SUPPORT}{os.pathsep}{paths}" if paths else str(SUPPORT)}
    start = time.perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, *arguments], cwd=folder, env=environment, stdout=file, stderr=file)
        _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    text = log.read_text(encoding="utf-8", errors="replace")
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise MidnightError(f"{' '.join(arguments)} failed with status {process.returncode}:\n{text[-3000:]}")
    return Reading(wall, used.ru_utime + used.ru_stime, text.strip().rpartition("\n")[2])


@dataclass(frozen=True)
class Ours:
    """One repetition of our side: readings by step, the split of each step's seconds, seconds and scores by cell."""

    readings: dict[str, Reading]
    parts: dict[str, dict[str, float]]
    seconds: dict[tuple[str, str], float]
    scores: Scores


@dataclass(frozen=True)
class Peer:
    """One run of eva's command line; `fits`: seconds after its embeddings were written."""

    task: str
    pooling: str
    command: str
    reading: Reading
    fits: float | None
    scores: list[float]


def cells(space: Workspace) -> list[tuple[str, str]]:
    """What both sides score: (task, pooling); segmentation does not pool, so it is there once."""
    pooled = {name: task.kind != peer.ONLINE for name, task in space.tasks.items()}
    return [
        (name, pooling) for name in space.tasks for pooling in (space.effort.poolings if pooled[name] else ("maps",))
    ]


def run_ours(space: Workspace, number: int) -> Ours:
    """All cells by the two steps of the workflow, with a thread per core, as its rules ask for eight or fewer."""
    output, cores = space.folder / f"ours{number}", str(os.cpu_count() or 1)
    output.mkdir()
    pooled = any(task.kind != peer.ONLINE for task in space.tasks.values())
    readings = {}
    for step in ("embed", "score") if pooled else ("score",):
        arguments = ["-m", "evaluate_support.ours", step, str(space.folder), str(output), cores]
        readings[step] = run_process(arguments, output, {**os.environ, "OMP_NUM_THREADS": cores})
    records = {}
    for name, pooling in cells(space):
        folder = space.effort.poolings[0] if pooling == "maps" else pooling
        records[name, pooling] = read_record(output / "scores" / folder / f"{name}.json")
    return Ours(
        readings,
        {step: json.loads(reading.told) for step, reading in readings.items()},
        {cell: record.seconds for cell, record in records.items()},
        {cell: record.values for cell, record in records.items()},
    )


def run_peer(space: Workspace, name: str, pooling: str) -> Peer:
    """One cell by eva's command line."""
    task, output = space.tasks[name], space.folder / f"eva-{name}-{pooling}"
    output.mkdir()
    content = yaml.safe_dump(peer.configuration(space, task, pooling, output), sort_keys=False)
    (output / "eva.yaml").write_text(content, encoding="utf-8")
    command = "fit" if task.kind == peer.ONLINE else "predict_fit"
    arguments = ["-m", "eva", command, "--config", str(output / "eva.yaml")]
    reading = run_process(arguments, output, {**os.environ, "EVA_GLOBAL_SEED": str(SEED)})
    manifest = output / "embeddings" / "manifest.csv"
    fits = time.time() - manifest.stat().st_mtime if manifest.exists() else None
    return Peer(name, pooling, command, reading, fits, peer.read_scores(output, task))


def run_all(space: Workspace) -> tuple[list[Ours], list[Peer]]:
    """Both sides in turn: ours, each cell by eva, ours again."""
    ours, peers, again = [], [], space.effort.repetitions - 1
    plan: list[tuple[str, str] | None] = [None, *cells(space), *[None] * again]
    with tqdm(plan, desc="evaluate", unit="turn") as bar:
        for cell in bar:
            bar.set_postfix_str("ours" if cell is None else f"eva {' '.join(cell)}")
            if cell is None:
                ours.append(run_ours(space, len(ours)))
            else:
                peers.append(run_peer(space, *cell))
    return ours, peers


def total(readings: Iterable[Reading], clock: str) -> float:
    """Seconds of several processes, one after the other, by "wall" or "cpu"."""
    return sum(getattr(reading, clock) for reading in readings)


def step_rows(ours: list[Ours]) -> list[dict[str, Any]]:
    """Our side by step, medians of the repetitions: imports, the encoder's forward passes and the rest."""
    rows = []
    for step in ours[0].readings:
        middle = {
            part: statistics.median(one.parts[step][part] for one in ours) for part in ("all", "imports", "encoder")
        }
        wall, cpu = (statistics.median(getattr(one.readings[step], clock) for one in ours) for clock in ("wall", "cpu"))
        rest = middle["all"] - middle["imports"] - middle["encoder"]
        times = {"wall_s": wall, "cpu_s": cpu, "imports_s": middle["imports"], "encoder_s": middle["encoder"]}
        rows.append({"step": step, **{name: round(value, 2) for name, value in (times | {"rest_s": rest}).items()}})
    return rows


def cell_rows(ours: list[Ours], peers: list[Peer]) -> list[dict[str, Any]]:
    """Both sides by cell: a whole process of eva, its fits, and our fits in the process that all cells share."""
    rows = []
    for one in peers:
        mine = statistics.median(repetition.seconds[one.task, one.pooling] for repetition in ours)
        times = {"eva_wall_s": one.reading.wall, "eva_cpu_s": one.reading.cpu, "eva_fits_s": one.fits}
        times |= {"ours_fits_s": mine, "fits_ratio": one.fits and one.fits / mine}
        shown = {name: value and round(value, 1) for name, value in times.items()}
        rows.append({"task": one.task, "pooling": one.pooling, "eva": one.command, **shown})
    return rows


def score_rows(ours: list[Ours], peers: list[Peer]) -> list[dict[str, Any]]:
    """The values of both sides, run by run."""
    rows = []
    for one in peers:
        mine = ours[0].scores[one.task, one.pooling]
        rows.append(
            {
                "task": one.task,
                "pooling": one.pooling,
                "ours": [round(value, 4) for value in mine],
                "eva": [round(value, 4) for value in one.scores],
                "identical_runs": sum(a == b for a, b in zip(mine, one.scores, strict=True)),
                "largest_difference": max(abs(a - b) for a, b in zip(mine, one.scores, strict=True)),
                "spread_of_runs": round(statistics.stdev(one.scores), 4) if len(one.scores) > 1 else None,
            }
        )
    return rows
