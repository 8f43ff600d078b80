"""Score records: one JSON file per cell (model, size, pooling, task), the only thing that the report reads."""

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from midnight.atomic import write_json
from midnight.errors import MidnightError
from midnight.evaluate.plus_minus import deviation

RELEVANT = ("torch", "timm", "kaiko-eva", "jsonargparse", "scikit-learn", "numpy")
"""Packages whose version can change a score."""

ROUNDING = ("BLAS", "numpy SIMD", "torch CPU")
"""Of `provenance.processor_versions`: what differs between processors and moves scores by rounding alone. A score is
not computed again because of these, and scores that differ in them may be averaged."""

HEST_ROUNDING = "0.0002 per task, 0.00005 overall"
"""How far HEST scores move between processors, see `midnight.evaluate.hest`."""

SAME = ("model", "size", "pooling", "protocol", "data")
"""What scores must have in common to be averaged."""


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
    seed: int | None = None
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
    spread = deviation(values, folds)
    return {
        "mean": statistics.fmean(values),
        "stdev": spread,
        "sem": spread / math.sqrt(len(values)),
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


def check_alike(scores: Iterable[Any]) -> None:
    """Check that scores (Records or the report's) may be averaged.

    Raises:
        MidnightError: none, several models, sizes, poolings or protocols, demo with real data, or a task twice.
    """
    scores = list(scores)
    for name in SAME:
        values = sorted({str(getattr(score, name)) for score in scores})
        if len(values) != 1:
            raise MidnightError(f"scores can't be averaged across {name}: {', '.join(values) or 'no scores'}")
    tasks = [score.task for score in scores]
    if len(set(tasks)) != len(tasks):
        raise MidnightError(f"scores can't be averaged: a task is there twice among {', '.join(sorted(tasks))}")


def mixed_versions(versions: Iterable[Mapping[str, str]]) -> list[str]:
    """Notes on scores that were not computed alike: by other versions of a package, or on other processors."""
    versions = list(versions)
    packages, processors = _differing(versions, RELEVANT), _differing(versions, ROUNDING)
    notes = [f"scores of different versions: {', '.join(packages)}"] if packages else []
    if processors:
        notes.append(
            f"scores of processors that round differently (HEST: up to {HEST_ROUNDING}): {', '.join(processors)}"
        )
    return notes


def _differing(versions: Sequence[Mapping[str, str]], names: Iterable[str]) -> list[str]:
    found = {name: sorted({str(installed[name]) for installed in versions if name in installed}) for name in names}
    return [f"{name} {' and '.join(values)}" for name, values in found.items() if len(values) > 1]


def aggregate(records: Iterable[Record]) -> float:
    """The plain mean over the columns of the paper's Table 2; tasks of one column (HEST) are averaged first.

    Scores of variants of tasks (perturbed images) are left out.

    Raises:
        MidnightError: see `check_alike`.
    """
    records = [record for record in records if not record.extra.get("variant_of")]
    check_alike(records)
    columns: dict[str, list[float]] = {}
    for record in records:
        columns.setdefault(record.column, []).append(record.mean)
    return statistics.fmean(statistics.fmean(values) for values in columns.values())
