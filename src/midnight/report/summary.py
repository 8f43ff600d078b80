"""The end of a run on the terminal: slides, scores, what is missing, where everything is."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from midnight.config.pipeline import is_generated
from midnight.errors import MidnightError
from midnight.evaluate.entries import POOLINGS
from midnight.paths import Layout
from midnight.report import formatting
from midnight.report.asked import Asked, read_asked
from midnight.report.columns import BY_KEY
from midnight.report.cures import troubles
from midnight.report.failures import Missing, missing_results
from midnight.report.ledger import Ledger, read_ledger
from midnight.report.scores import Score, load_scores
from midnight.report.tables import Row, Table, build_further, build_tables

WIDTH = 160
KINDS = 6
"""Kinds of trouble with slides that are listed."""
ROWS = 12
"""Models per table."""
LABEL = 11


def summary(results: str | Path, succeeded: bool = False) -> str:
    """The summary of a results folder, some dozen lines; parts that are not there yet are left out.

    Args:
        results: `results_dir` of the configuration.
        succeeded: the run that has just ended did all that it was asked for, so what is missing has not failed.

    Raises:
        MidnightError: there is no such folder, or nothing of a run in it.
    """
    results = Path(results)
    layout = Layout(str(results), "")
    asked = read_asked(layout.asked())
    missing = _missing(layout, asked, succeeded)
    parts = [_slides(layout, asked), _scores(results, asked), missing, _places(results, asked)]
    if not any(parts[:3]) and asked is None:
        raise MidnightError(f"{results}: no results of a run there; name its results_dir, e.g. results/demo")
    return "\n".join([f"Summary of {results}", *(line for part in parts for line in part)])


def newest_results(folder: Path = Path("results")) -> Path:
    """The results folder, this one or one in it, in which the workflow ran last.

    Raises:
        MidnightError: there is none.
    """
    found = [path for pattern in ("asked.json", "*/asked.json") for path in folder.glob(pattern)]
    if not found:
        raise MidnightError(f"{folder.resolve()}: no run's results in it; name a results_dir, e.g. results/demo")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def _section(title: str, lines: Sequence[str]) -> list[str]:
    """Lines beside the title of their section."""
    return [f"  {title if i == 0 else '':{LABEL}}{line}".rstrip() for i, line in enumerate(lines)]


def _slides(layout: Layout, asked: Asked | None) -> list[str]:
    cohorts = asked.cohorts if asked else sorted(path.parent.name for path in _glob(layout, "slides/*/*.tsv"))
    tables = [path for name in dict.fromkeys(cohorts) for path in _glob(layout, f"slides/{name}/*.tsv")]
    indices = [path for name in dict.fromkeys(cohorts) for path in _glob(layout, f"tissue/{name}/index.parquet")]
    manifests = [path for name in dict.fromkeys(cohorts) for path in _glob(layout, f"cohorts/{name}/manifest.tsv")]
    if not tables:
        return []
    runs = asked.runs if asked else [path.parent.name for path in _glob(layout, "models/*/config.yaml")]
    try:
        ledger = read_ledger(tables, indices, [Path(layout.model(run)) for run in runs], manifests)
    except MidnightError as error:
        return _section("Slides", [str(error)])
    return _section("Slides", [_counts(ledger), *_left_out(ledger)])


def _glob(layout: Layout, pattern: str) -> list[Path]:
    return sorted(Path(layout.results_dir).glob(pattern))


def _counts(ledger: Ledger) -> str:
    total = sum(cohort.total for cohort in ledger.cohorts)
    cohorts = f" ({', '.join(f'{c.cohort} {c.ok:,} of {c.total:,}' for c in ledger.cohorts)})"
    parts = [f"{ledger.ok:,} of {total:,} used{cohorts if len(ledger.cohorts) > 1 else ''}"]
    parts += [f"{ledger.tissue_mm2:,.0f} mm² of tissue"] if ledger.tissue_mm2 else []
    parts += [f"{len(ledger.damaged)} damaged in places and used elsewhere"] if ledger.damaged else []
    return ", ".join(parts)


def _left_out(ledger: Ledger) -> Iterable[str]:
    found = troubles([*ledger.quarantined, *ledger.refused])
    for trouble in found[:KINDS]:
        yield _short(f"left out {len(trouble.slides)} ({trouble.stage}): {trouble.reason}")
        if trouble.cure:
            yield f"    do: {trouble.cure}"
        yield _short(f"    slides: {trouble.names}")
    if len(found) > KINDS:
        yield f"and {sum(len(trouble.slides) for trouble in found[KINDS:])} for other reasons: see the report's ledger"


def _short(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def _scores(results: Path, asked: Asked | None) -> list[str]:
    try:
        scores = [score for score in load_scores(sorted((results / "scores").rglob("*.json"))) if _wanted(score, asked)]
        tables = [*build_tables(scores), *build_further(scores)]
    except MidnightError as error:
        return _section("Scores", [str(error)])
    return [line for table in tables for line in _section("Scores", _table(table))]


def _wanted(score: Score, asked: Asked | None) -> bool:
    return asked is None or (score.model in asked.models and score.task in asked.tasks)


def _table(table: Table) -> list[str]:
    """The first pooling of each model, best first, and the columns that have values."""
    pooling = next((name for name in POOLINGS if any(row.pooling == name for row in table.rows)), "")
    rows = table.only(pooling).rows
    columns = [column for column in table.columns if any(row.cells[column.key].value is not None for row in rows)]
    average = table.has_average and len(columns) > 1
    heads = ["", *(["mean"] if average else []), *(column.short for column in columns)]
    lines = [heads, *(_cells(row, [column.key for column in columns], average) for row in rows[:ROWS])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    metrics = " or ".join(dict.fromkeys(BY_KEY[c.key].metric if c.key in BY_KEY else c.metric for c in columns))
    generated = " (generated data: not comparable with published numbers)" if is_generated(table.data) else ""
    title = _short(f"{POOLINGS.get(pooling, pooling)}, protocol {table.protocol}{generated}: {metrics}")
    more = [f"and {len(rows) - ROWS} more models: see the report"] if len(rows) > ROWS else []
    return [title, *("  ".join(_aligned(line, widths)) for line in lines), *more]


def _cells(row: Row, keys: Sequence[str], average: bool) -> list[str]:
    mean = [formatting.score(row.average.value if row.average else None)] if average else []
    return [row.label, *mean, *(formatting.score(row.cells[key].value) for key in keys)]


def _aligned(line: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    return (f"{cell:{'<' if i == 0 else '>'}{width}}" for i, (cell, width) in enumerate(zip(line, widths, strict=True)))


def _missing(layout: Layout, asked: Asked | None, succeeded: bool) -> list[str]:
    found = missing_results(layout, asked) if asked else []
    failed = [missing for missing in found if missing.log and not succeeded]
    waiting = [missing.name for missing in found if missing not in failed]
    not_begun = [_short(f"{len(waiting)}: {', '.join(waiting)}")] if waiting else []
    return _section("Failed", [line for missing in failed for line in _failure(missing)]) + _section(
        "Not made" if succeeded else "Not begun", not_begun
    )


def _failure(missing: Missing) -> tuple[str, str]:
    return _short(f"{missing.name}: {missing.what}: {missing.reason}"), f"    log: {missing.log}"


def _places(results: Path, asked: Asked | None) -> list[str]:
    """Where everything is, of what is there."""
    report, logs, local = results / "report.html", results / "logs", results / "mlflow.db"
    uri = asked.tracking_uri if asked else None
    lines = _section("Report", [str(report)] if report.exists() else ["not written yet"])
    lines += _section("Logs", [f"{logs}/RULE/….log, Snakemake's own in .snakemake/log/"] if logs.is_dir() else [])
    if uri not in (None, "off"):
        lines += _section("MLflow", [formatting.without_credentials(str(uri))])
    elif local.exists() and uri is None:
        lines += _section("MLflow", [f"mlflow ui --backend-store-uri sqlite:///{local}"])
    return lines
