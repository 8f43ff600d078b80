"""Published numbers: the paper's tables, its README's and OpenMidnight's, with their discrepancies.

They are shown beside a run's own tables, never in one ranking with them.
"""

import csv
import functools
import json
import statistics
from dataclasses import dataclass
from importlib import resources
from typing import Any

from midnight.evaluate.plus_minus import Average
from midnight.report.columns import COLUMNS, KEYS
from midnight.report.scores import finite
from midnight.report.tables import Cell, Row, Table, rank

RESULTS = ("table2", "tablea1", "readme", "openmidnight")


@dataclass(frozen=True)
class Discrepancy:
    """Two published values of one cell that differ by more than rounding."""

    model: str
    pooling: str
    column: str
    first: str
    first_value: float
    second: str
    second_value: float


def _folder() -> Any:
    return resources.files("midnight.report") / "published"


@functools.cache
def sources() -> dict[str, dict[str, Any]]:
    """Title, source, address, digits and notes of each published table."""
    return json.loads((_folder() / "sources.json").read_text(encoding="utf-8"))


def read_rows(name: str) -> list[dict[str, str]]:
    """The rows of `published/{name}.csv` as they are written."""
    return list(csv.DictReader((_folder() / f"{name}.csv").read_text(encoding="utf-8").splitlines()))


def published_table(name: str) -> Table:
    """A published result table, marked as such, its best values ranked within it."""
    source = sources()[name]
    rows = [_row(raw) for raw in read_rows(name)]
    digits = int(source["digits"])
    return Table(
        source["title"],
        "published",
        "",
        COLUMNS,
        tuple(rank(rows, KEYS)),
        digits=digits,
        source=source["source"],
        url=source["url"],
        notes=tuple(source["notes"]),
    )


def _row(raw: dict[str, str]) -> Row:
    cells = {key: Cell(float(raw[key]), _optional(raw.get(f"{key}_pm"))) for key in KEYS}
    average = Average(float(raw["average"]), _optional(raw.get("average_pm")), len(KEYS), len(KEYS))
    return Row(raw["model"], raw["model"], None, raw["pooling"], cells, average, wsis=raw["wsis"])


def _optional(text: str | None) -> float | None:
    return finite(float(text)) if text else None


def _slack(text: str) -> float:
    """Half a unit of the last printed digit."""
    return 0.5 * 10.0 ** -len(text.partition(".")[2])


def wrong_averages(name: str, suffix: str = "") -> list[tuple[str, str, float, float]]:
    """Rows whose printed average is not the mean of their printed cells to rounding.

    Args:
        name: a result table of `published/`.
        suffix: "_pm" checks the printed ± of the average instead.

    Returns:
        (model, pooling, printed, computed) of each.
    """
    wrong = []
    for raw in read_rows(name):
        texts = [raw[key + suffix] for key in KEYS]
        computed = statistics.fmean(map(float, texts))
        slack = statistics.fmean(map(_slack, texts)) + _slack(raw["average" + suffix])
        printed = float(raw["average" + suffix])
        if abs(printed - computed) > slack + 1e-9:
            wrong.append((raw["model"], raw["pooling"], printed, computed))
    return wrong


def compare(first: str, second: str) -> list[Discrepancy]:
    """Cells that two published tables share (same model and pooling) and give differently, beyond rounding."""
    others = {(raw["model"], raw["pooling"]): raw for raw in read_rows(second)}
    found = []
    for raw in read_rows(first):
        other = others.get((raw["model"], raw["pooling"]), {})
        for key in (*KEYS, "average"):
            if key in other and abs(float(raw[key]) - float(other[key])) > _tolerance(raw[key], other[key]):
                values = (first, float(raw[key]), second, float(other[key]))
                found.append(Discrepancy(raw["model"], raw["pooling"], key, *values))
    return found


def _tolerance(a: str, b: str) -> float:
    """Equal digits must agree; otherwise half a unit of the coarser (a tie may round either way)."""
    return 1e-9 + (0.0 if _slack(a) == _slack(b) else max(_slack(a), _slack(b)))


@functools.cache
def discrepancies() -> tuple[Discrepancy, ...]:
    """All of them: Table 2 against Table A1 and the README, OpenMidnight's [CLS] rows against Table A1."""
    pairs = (("table2", "tablea1"), ("table2", "readme"), ("tablea1", "readme"), ("tablea1", "openmidnight"))
    found: dict[tuple[str, ...], Discrepancy] = {}
    for first, second in pairs:
        for item in compare(first, second):
            found.setdefault((item.model, item.pooling, item.column, item.second), item)
    return tuple(found.values())
