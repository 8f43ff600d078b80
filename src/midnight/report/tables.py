"""Score records arranged as the paper's Tables 2 and A1.

Demo and real data, and different protocols, never share a table: each pair has its own. Ranks (for bold)
are among rows of the same pooling, by the three digits that are shown.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from midnight.evaluate import plus_minus
from midnight.evaluate.division import BY_IMAGE
from midnight.evaluate.entries import POOLINGS
from midnight.evaluate.records import check_alike, mixed_versions
from midnight.report.columns import COLUMNS, HEST, HEST_TASKS, KEYS, Column
from midnight.report.scores import Score

NOT_CONFIGURED = "not among the tasks of this run"
NO_RECORD = "no score for this model"
NOT_FINITE = "the score is not a finite number"
DIGITS = 3


@dataclass(frozen=True)
class Cell:
    """A value with its ± (as printed) and its standard error (for differences), or the reason for its absence."""

    value: float | None = None
    error: float | None = None
    standard_error: float | None = None
    n_runs: int = 0
    tasks: tuple[str, ...] = ()
    reason: str = ""
    rank: int | None = None


@dataclass(frozen=True)
class Row:
    """One model at one size with one pooling."""

    model: str
    label: str
    size: int | None
    pooling: str
    cells: Mapping[str, Cell]
    average: plus_minus.Average | None = None
    average_rank: int | None = None
    wsis: str = ""

    @property
    def name(self) -> str:
        """The label as Table A1 prints it: `[CLS]` marks the rows of CLS embeddings."""
        return f"{self.label} [CLS]" if self.pooling == "cls" else self.label


@dataclass(frozen=True)
class Table:
    """Rows that may be ranked together. `data` is "real", "demo" or "published"."""

    title: str
    data: str
    protocol: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    has_average: bool = True
    digits: int = DIGITS
    source: str = ""
    url: str = ""
    notes: tuple[str, ...] = field(default=())

    def only(self, pooling: str) -> "Table":
        """The same table with the rows of one pooling (the form of Table 2: `cls_mean`)."""
        return replace(self, rows=tuple(row for row in self.rows if row.pooling == pooling))


def combine(scores: Sequence[Score]) -> Cell:
    """One cell from the scores of one column.

    A column of several tasks (HEST) is their mean; its ± is the mean of the tasks' standard deviations, as in
    Table A1, and its standard error follows from the tasks' own.

    Raises:
        MidnightError: the scores are of several models, protocols, …, or a task is there twice.
    """
    check_alike(scores)
    if any(score.mean is None for score in scores):
        return Cell(reason=NOT_FINITE, tasks=tuple(score.task for score in scores))
    means = [score.mean for score in scores if score.mean is not None]
    value = sum(means) / len(means)
    tasks = tuple(score.task for score in scores)
    errors = [score.error for score in scores]
    shown = [score.stdev for score in scores] if scores[0].column == HEST else errors
    runs = min(score.n_runs for score in scores)
    return Cell(value, plus_minus.mean_error(shown), plus_minus.error_of_mean(errors), runs, tasks)


def _rows(scores: Sequence[Score], keys: Sequence[str], reasons: Mapping[str, str]) -> list[Row]:
    run = {score.column for score in scores}
    sizes: dict[str, set[int]] = {}
    groups: dict[tuple[str, int, str], list[Score]] = {}
    for score in scores:
        sizes.setdefault(score.model, set()).add(score.size)
        groups.setdefault((score.model, score.size, score.pooling), []).append(score)
    rows = []
    for (model, size, pooling), group in groups.items():
        label = group[0].label + (f"/{size}" if len(sizes[model]) > 1 else "")
        cells = {key: _cell(group, key, key in run, reasons) for key in keys}
        rows.append(Row(model, label, size, pooling, cells))
    return rows


def _cell(group: Sequence[Score], key: str, was_run: bool, reasons: Mapping[str, str]) -> Cell:
    scores = sorted((score for score in group if score.column == key), key=lambda score: score.task)
    if scores:
        return combine(scores)
    return Cell(reason=NO_RECORD if was_run else reasons.get(key, NOT_CONFIGURED))


def _average(row: Row) -> Row:
    cells = [row.cells[key] for key in KEYS]
    tasks = len(row.cells[HEST].tasks)
    note = f"HEST of {tasks} of {HEST_TASKS} tasks" if 0 < tasks < HEST_TASKS else ""
    values, errors = [cell.value for cell in cells], [cell.error for cell in cells]
    return replace(row, average=plus_minus.average(values, errors, len(KEYS), note))


def _ranks(values: Sequence[float | None], digits: int) -> list[int | None]:
    """Rank from the highest, equal where the shown digits are equal; none when there is nothing to compare."""
    shown = [None if value is None else round(value, digits) for value in values]
    order = sorted((value for value in shown if value is not None), reverse=True)
    return [None if value is None or len(order) < 2 else order.index(value) + 1 for value in shown]


def rank(rows: Sequence[Row], keys: Sequence[str], digits: int = DIGITS) -> list[Row]:
    """Rows with ranks, sorted as in the paper: by the CLS+Mean average, each model's [CLS] row below it.

    Averages are ranked only where all of them cover the same columns.
    """
    ranked: list[Row] = []
    for pooling in dict.fromkeys(row.pooling for row in rows):
        group = [row for row in rows if row.pooling == pooling]
        by_key = {key: _ranks([row.cells[key].value for row in group], digits) for key in keys}
        covered = {tuple(key for key in keys if row.cells[key].value is not None) for row in group}
        means = [row.average.value if row.average else None for row in group]
        mean_ranks = _ranks(means, digits) if len(covered) == 1 else [None] * len(group)
        for i, row in enumerate(group):
            cells = {**row.cells, **{key: replace(row.cells[key], rank=by_key[key][i]) for key in keys}}
            ranked.append(replace(row, cells=cells, average_rank=mean_ranks[i]))
    return _sorted(ranked)


def _sorted(rows: Sequence[Row]) -> list[Row]:
    """By the average of a model's first pooling (CLS+Mean when there is one), poolings together."""
    order = {pooling: i for i, pooling in enumerate(POOLINGS)}
    best: dict[tuple[str, int | None], tuple[int, float]] = {}
    for row in rows:
        place = order.get(row.pooling, len(order))
        key = (row.model, row.size)
        mean = row.average.value if row.average else float("-inf")
        if key not in best or place < best[key][0]:
            best[key] = (place, mean)
    return sorted(
        rows, key=lambda r: (-best[(r.model, r.size)][1], r.model, r.size or 0, order.get(r.pooling, len(order)))
    )


def _groups(scores: Iterable[Score]) -> dict[tuple[str, str], list[Score]]:
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.data, score.protocol), []).append(score)
    return dict(sorted(groups.items(), key=lambda item: (item[0][0] != "real", item[0][1])))


def _version_notes(scores: Iterable[Score]) -> tuple[str, ...]:
    return tuple(mixed_versions(score.record.get("versions") or {} for score in scores))


def _division_notes(scores: Iterable[Score]) -> tuple[str, ...]:
    """How the images of each folder task are divided, and what was left out of it."""
    notes: dict[str, None] = {}
    for score in scores:
        if score.record.get("kind") == "folder":
            extra = score.record.get("extra") or {}
            notes[f"{score.task}: {extra.get('division') or BY_IMAGE}"] = None
            notes |= {f"{score.task}: left out: {line}": None for line in extra.get("left_out", ())}
    return tuple(notes)


def build_tables(scores: Iterable[Score], reasons: Mapping[str, str] | None = None) -> list[Table]:
    """Table 2/A1 of the scores in the paper's columns, one per (data, protocol), real data first.

    Args:
        scores: any score records; those of other columns are left to `build_further`.
        reasons: why a column was not run, by key; a general reason otherwise.
    """
    tables = []
    papers = (score for score in scores if score.column in KEYS and not score.variant_of)
    for (data, protocol), group in _groups(papers).items():
        rows = rank([_average(row) for row in _rows(group, KEYS, reasons or {})], KEYS)
        notes = _version_notes(group)
        tables.append(Table("Downstream performance", data, protocol, COLUMNS, tuple(rows), notes=notes))
    return tables


def build_further(scores: Iterable[Score]) -> list[Table]:
    """Tasks that are not in the paper's table (a custom tile task), one table per (data, protocol), no average."""
    tables = []
    others = (score for score in scores if score.column not in KEYS and not score.variant_of)
    for (data, protocol), group in _groups(others).items():
        names = {s.column: str(s.record.get("column") or s.column) for s in group}
        columns = tuple(dict.fromkeys(Column(s.column, names[s.column], names[s.column], s.metric) for s in group))
        keys = [column.key for column in columns]
        rows = rank(_rows(group, keys, {}), keys)
        notes = (*_version_notes(group), *_division_notes(group))
        tables.append(Table("Further tasks", data, protocol, columns, tuple(rows), has_average=False, notes=notes))
    return tables
