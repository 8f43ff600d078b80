"""What was asked for and is not there, and why: from the logs that its rules left."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from midnight.paths import Layout
from midnight.report.asked import Asked, AskedModel
from midnight.tail import error_line, read_tail

FAILURE = "failure.json"


@dataclass(frozen=True)
class Missing:
    """A run or a model without its results: the reason and the log where something was tried, else both empty."""

    name: str
    what: str
    reason: str = ""
    log: str = ""


def missing_results(layout: Layout, asked: Asked) -> list[Missing]:
    """Cohorts without an index, runs without weights, models without all of their scores (if theirs is not missing)."""
    cohorts = [name for name in asked.cohorts if not Path(layout.tissue_index(name)).exists()]
    runs = [name for name in asked.runs if not Path(layout.model(name, "teacher.safetensors")).exists()]
    found = [_missing(f"cohort {name}", "its slides are not ready", _slide_logs(layout, name)) for name in cohorts]
    found += [_missing(f"run {name}", "not trained", [layout.log("train", name)], _note(layout, name)) for name in runs]
    for name, model in asked.models.items():
        if model.run not in runs:
            found += _unscored(layout, asked, name, model)
    return found


def _slide_logs(layout: Layout, cohort: str) -> list[str]:
    """Logs of what comes before training, the newest first."""
    rules = ("pin_manifest", "fetch_slides", "segment_tissue", "join_tissue")
    whole = [Path(layout.log(rule, cohort)) for rule in rules]
    shards = [log for rule in rules for log in Path(layout.log(rule, cohort, "x")).parent.glob("*.log")]
    found = [log for log in (*whole, *shards) if log.exists()]
    return [str(log) for log in sorted(found, key=lambda log: -log.stat().st_mtime)]


def _unscored(layout: Layout, asked: Asked, name: str, model: AskedModel) -> Iterable[Missing]:
    for size in map(str, model.sizes):
        cells = [layout.score(name, size, pooling, task) for pooling in asked.poolings for task in asked.tasks]
        absent = sum(not Path(cell).exists() for cell in cells)
        if absent:
            logs = [layout.log(rule, f"{name}-{size}") for rule in ("score", "embed")]
            what = f"{absent} of {len(cells)} scores missing"
            yield _missing(f"model {model.label} at {size} px", what, [*logs, layout.log("init_model", name)])


def _missing(name: str, what: str, logs: Iterable[str], note: str = "") -> Missing:
    """The newest step that was tried is the one that failed."""
    log = next((log for log in logs if Path(log).exists()), "")
    return Missing(name, what, note or (_last_words(Path(log)) if log else ""), log)


def _note(layout: Layout, run: str) -> str:
    try:
        return str(json.loads(Path(layout.model(run, FAILURE)).read_text(encoding="utf-8"))["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _last_words(log: Path) -> str:
    """What the script says is wrong, else the log's last line."""
    lines = read_tail(log)
    return error_line(lines) or (lines[-1].strip() if lines else "")
