"""`midnight tasks status` and `midnight tasks prepare`: what they print."""

import json
from collections.abc import Collection
from typing import Any

from midnight import logs
from midnight.config import Evaluation
from midnight.errors import ConfigError
from midnight.evaluate.prepare.check import Status, check, find_datasets
from midnight.evaluate.prepare.task import prepare

HEAD = ("tasks", "folder", "state", "files", "size", "what to do")


def status(evaluation: Evaluation, verify: bool, as_json: bool) -> bool:
    """Print what is there of the configuration's data sets; whether anything is missing."""
    statuses = [check(dataset, verify) for dataset in find_datasets(evaluation)]
    print(json.dumps([as_dict(status) for status in statuses], indent=2) if as_json else table(statuses))
    return not all(status.complete for status in statuses)


def prepare_tasks(evaluation: Evaluation, tasks: Collection[str]) -> bool:
    """Make the data sets of some tasks ready, as the workflow does; whether anything is missing still.

    Raises:
        ConfigError: the configuration has no such task.
        MidnightError: a download failed.
    """
    logs.setup()
    datasets = {name: dataset for dataset in find_datasets(evaluation) for name in dataset.tasks}
    if unknown := [name for name in tasks if name not in datasets]:
        raise ConfigError(f"evaluation.tasks: has no task {unknown[0]!r}; it has: {', '.join(datasets)}")
    wanted = {dataset.task.name: dataset for name, dataset in datasets.items() if name in tasks}
    statuses = [prepare(dataset) for dataset in wanted.values()]
    print(table(statuses))
    return not all(status.complete for status in statuses)


def as_dict(status: Status) -> dict[str, Any]:
    """A status, JSON-like; all problems are listed."""
    return {
        "tasks": list(status.dataset.tasks),
        "folder": str(status.dataset.root),
        "state": status.state,
        "found": status.found,
        "expected": status.expected,
        "bytes": status.size,
        "problems": list(status.problems),
        "how": status.how,
    }


def table(statuses: list[Status]) -> str:
    """A line per data set below a line of heads, and how many are complete."""
    rows = [HEAD, *(_row(status) for status in statuses)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    complete = sum(status.complete for status in statuses)
    return "\n".join([*lines, f"{complete} of {len(statuses)} data sets complete"])


def _row(status: Status) -> tuple[str, ...]:
    found = f"{status.found:,} of {status.expected:,}" if status.expected else f"{status.found:,}"
    missing = f"{status.lacking}; " if status.state == "incomplete" else ""
    return (
        ", ".join(status.dataset.tasks),
        str(status.dataset.root),
        status.state,
        found,
        f"{status.size / 1e9:.2f} GB",
        missing + status.how,
    )
