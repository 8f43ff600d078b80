"""Score records: one JSON file per cell (model, size, pooling, task), the only thing that the report reads."""

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from midnight.atomic import write_json
from midnight.errors import MidnightError


@dataclass(frozen=True)
class Record:
    """One cell. values: metric per run (hest: per fold); stdev: ddof 1 (hest: ddof 0); sem: stdev / √runs."""

    model: str
    label: str
    size: int
    pooling: str
    task: str
    column: str
    metric: str
    values: list[float]
    mean: float
    stdev: float
    sem: float
    n_runs: int
    protocol: str
    data: str
    versions: dict[str, str]
    config_hash: str
    data_hash: str
    model_hash: str
    seconds: float
    provenance: dict[str, Any]
    kind: str = ""
    split: str = ""
    published: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


NAMES = tuple(item.name for item in dataclasses.fields(Record))


def summarise(values: Sequence[float], folds: bool) -> dict[str, float | int]:
    """mean, stdev, sem and n_runs of the values of a cell.

    Args:
        values: one per run or fold.
        folds: HEST's convention: the standard deviation over folds is the population's (ddof 0).

    Raises:
        MidnightError: no values, or one is not a finite number.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise MidnightError(
            f"a score must be made of finite numbers, not {list(values)}; see the log of the score rule"
        )
    deviation = statistics.pstdev(values) if folds else (statistics.stdev(values) if len(values) > 1 else 0.0)
    return {
        "mean": statistics.fmean(values),
        "stdev": deviation,
        "sem": deviation / math.sqrt(len(values)),
        "n_runs": len(values),
    }


def write_record(path: Path, record: Record) -> None:
    """Write a record atomically.

    Raises:
        MidnightError: a value is not a finite number, or the file can't be written.
    """
    numbers = [*record.values, record.mean, record.stdev, record.sem, record.seconds]
    if not all(math.isfinite(value) for value in numbers):
        raise MidnightError(f"{path}: not written: a score of {record.model} on {record.task} is not a finite number")
    write_json(path, dataclasses.asdict(record))


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        MidnightError: not a score record.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Record(**{name: content[name] for name in NAMES if name in content})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise MidnightError(f"{path}: not a score record ({error}); run the score rule again") from error


def read_records(folder: Path) -> list[Record]:
    """All records below a folder such as `results/scores`, sorted by path.

    Raises:
        MidnightError: a JSON file there is not a score record.
    """
    return [read_record(path) for path in sorted(Path(folder).rglob("*.json"))]


def aggregate(records: Iterable[Record]) -> float:
    """The plain mean over the columns of the paper's Table 2; tasks of one column (HEST) are averaged first.

    Raises:
        MidnightError: none, several models, sizes, poolings or protocols, demo with real data, or a task twice.
    """
    records = list(records)
    for name in ("model", "size", "pooling", "protocol", "data"):
        values = sorted({str(getattr(record, name)) for record in records})
        if len(values) != 1:
            raise MidnightError(f"scores can't be averaged across {name}: {', '.join(values) or 'no scores'}")
    tasks = [record.task for record in records]
    if len(set(tasks)) != len(tasks):
        raise MidnightError(f"scores can't be averaged: a task is there twice among {', '.join(sorted(tasks))}")
    columns: dict[str, list[float]] = {}
    for record in records:
        columns.setdefault(record.column, []).append(record.mean)
    return statistics.fmean(statistics.fmean(values) for values in columns.values())
