"""The report: one self-contained HTML page."""

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jinja2
import yaml
from markupsafe import Markup

from midnight import provenance
from midnight.atomic import write_text
from midnight.evaluate.entries import POOLINGS
from midnight.report import formatting, published, table_forms
from midnight.report.ablations import build_ablations
from midnight.report.columns import BY_KEY
from midnight.report.comparison import Comparison, compare_to_random
from midnight.report.inline import Embedded, data_uri, read_figures
from midnight.report.labels import Labels
from midnight.report.ledger import Ledger, read_ledger
from midnight.report.robustness import build_robustness
from midnight.report.scores import Score, by_group, finite, load_scores
from midnight.report.tables import Table, build_further, build_tables
from midnight.report.walltime import read_walltimes
from midnight.tiles.folders.listing import SUFFIX, read_list

KINDS = ("curves", "gains", "tiles", "stain", "tissue", "pca", "tsne")
MEDIA = {"csv": "text/csv", "md": "text/markdown", "tex": "text/x-tex"}


@dataclass(frozen=True)
class ReportInputs:
    """Everything that the page is made of; every part may be absent.

    Attributes:
        title: heading of the page.
        data: "demo" puts the banner on top.
        scores: score records, `scores/{model}/{size}/{pooling}/{task}.json`.
        slides: per-shard slide tables, `slides/{cohort}/{shard}.tsv`.
        tissue: tissue indices, `tissue/{cohort}/index.parquet`.
        manifests: `cohorts/{cohort}/manifest.tsv`, for what was refused at pinning.
        tile_lists: `tile_folders/{name}.tiles.parquet`, of the folders of tiles that runs trained on.
        runs: training run: its folder `models/{run}/`.
        figures: files of `midnight.report.figures`.
        benchmarks: folder with Snakemake's benchmark files.
        config: the resolved configuration.
        failed: models that have no scores since a job of theirs failed, and why.
        labels: what the registries say (`midnight.report.labels.read_labels`).
    """

    title: str
    data: Literal["real", "demo"]
    scores: Sequence[Path] = ()
    slides: Sequence[Path] = ()
    tissue: Sequence[Path] = ()
    manifests: Sequence[Path] = ()
    tile_lists: Sequence[Path] = ()
    runs: Mapping[str, Path] = field(default_factory=dict)
    figures: Sequence[Path] = ()
    benchmarks: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)


def build_report(inputs: ReportInputs, output: Path) -> None:
    """Write the page atomically: styles inline, images and downloads as data URIs, no script, no network.

    Raises:
        MidnightError: an input exists but can't be read.
    """
    write_text(output, render(inputs))


def render(inputs: ReportInputs) -> str:
    """The page as text (see `build_report`)."""
    loader = jinja2.PackageLoader("midnight.report", "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "score": formatting.score,
        "signed": formatting.signed,
        "filesize": formatting.size,
        "duration": formatting.duration,
    }
    styles = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(style=Markup(styles), **context(inputs))  # noqa: S704


def context(inputs: ReportInputs) -> dict[str, Any]:
    """What the template shows, by name."""
    scores = load_scores(inputs.scores)
    tables, further = build_tables(scores, inputs.labels.reasons), build_further(scores)
    comparisons = compare_to_random(scores, inputs.labels.sources)
    ledger = read_ledger(inputs.slides, inputs.tissue, inputs.runs.values(), inputs.manifests)
    figures = _ordered(read_figures(inputs.figures), list(inputs.runs))
    return {
        "title": inputs.title,
        "data": inputs.data,
        "date": datetime.datetime.now(datetime.UTC).strftime("%d %B %Y, %H:%M UTC"),
        "facts": _facts(ledger, scores, comparisons, inputs.runs),
        "failed": inputs.failed,
        "tables": tables,
        "further": further,
        "robustness": build_robustness(scores),
        "comparisons": _comparison_tables(comparisons),
        "ablations": build_ablations(tables, inputs.runs, inputs.config, inputs.labels.runs),
        "published": [published.published_table(name) for name in published.RESULTS],
        "published_rows": {name: published.read_rows(name) for name in ("table1", "table3")},
        "sources": published.sources(),
        "discrepancies": published.discrepancies(),
        "wrong_averages": [(name, *row) for name in published.RESULTS for row in published.wrong_averages(name)],
        "figures": {kind: [item for item in figures if item.kind == kind] for kind in KINDS},
        "other_figures": [item for item in figures if item.kind not in KINDS],
        "ledger": ledger,
        "tile_folders": {path.name.removesuffix(SUFFIX): read_list(path) for path in inputs.tile_lists},
        "provenance": _provenance(inputs.config, scores),
        "walltimes": read_walltimes(inputs.benchmarks),
        "config": _config_text(inputs.config),
        "downloads": _downloads(scores, inputs.labels),
        "columns": BY_KEY,
        "poolings": POOLINGS,
        "heading": table_forms.heading,
        "average_heading": table_forms.average_heading,
        "absences": table_forms.absences,
    }


def _ordered(figures: list[Embedded], runs: list[str]) -> list[Embedded]:
    """Training curves in the order of the runs, everything else by name."""
    place = {f"curves-{run}": i for i, run in enumerate(runs)}
    return sorted(figures, key=lambda figure: (place.get(figure.name, len(runs)), figure.name))


def _facts(
    ledger: Ledger, scores: Sequence[Score], comparisons: Sequence[Comparison], runs: Mapping[str, Path]
) -> list[tuple[str, str, str]]:
    """The row of figures under the title: (number, what it is, remark)."""
    facts = []
    if ledger.cohorts:
        remark = f"{len(ledger.quarantined)} quarantined" if ledger.quarantined else "none quarantined"
        remark += f", {ledger.unavailable} of them only unavailable for now" if ledger.unavailable else ""
        facts.append((f"{ledger.ok:,}", "slides used", remark))
        facts.append((f"{ledger.tissue_mm2:,.0f} mm²", "of tissue", formatting.size(ledger.size) + " of slides"))
    if runs:
        facts.append((str(len(runs)), "training runs", ", ".join(runs) if len(runs) <= 3 else ""))
    if scores:
        models, tasks = {score.model for score in scores}, {score.task for score in scores}
        facts.append((str(len(scores)), "scores", f"{len(models)} models, {len(tasks)} tasks"))
    if comparisons:
        better = sum(1 for c in comparisons if c.in_errors is not None and c.in_errors > 2)
        facts.append((f"{better} of {len(comparisons)}", "comparisons won", "over random initialisation by > 2 SE"))
    return facts


def _comparison_tables(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Comparisons of one kind of data, protocol and pooling together, real data and CLS+Mean first."""
    tasks = list(dict.fromkeys(item.task for item in comparisons))
    return [
        {
            "data": data,
            "protocol": protocol,
            "pooling": POOLINGS.get(pooling, pooling),
            "rows": sorted(rows, key=lambda item: tasks.index(item.task)),
        }
        for (data, protocol, pooling), rows in by_group(comparisons).items()
    ]


def _provenance(config: Mapping[str, Any], scores: Sequence[Score]) -> dict[str, Any]:
    """Of the page, and the distinct values that the score records carry."""
    own = provenance.provenance(config)
    versions: dict[str, set[str]] = {name: {version} for name, version in own["versions"].items()}
    for score in scores:
        for name, version in (score.record.get("versions") or {}).items():
            versions.setdefault(str(name), set()).add(str(version))
    own["versions"] = {name: ", ".join(sorted(found)) for name, found in sorted(versions.items())}
    own["commits"] = sorted({str((s.record.get("provenance") or {}).get("commit", "unknown")) for s in scores})
    own["cells"] = [(score, *_hashes(score), finite(score.record.get("seconds"))) for score in scores]
    return own


def _hashes(score: Score) -> list[str]:
    return [str(score.record.get(name) or "–")[:12] for name in ("config_hash", "data_hash", "model_hash")]


def _config_text(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    text = yaml.safe_dump(json.loads(json.dumps(config, default=str)), sort_keys=False, allow_unicode=True)
    return formatting.without_credentials(text)


def _downloads(scores: Sequence[Score], labels: Labels) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """(table's title, [(file name, form, data URI)])."""
    full, further = build_tables(scores, labels.reasons), build_further(scores)
    groups = [
        ("Table 2 (CLS+Mean)", "table2", [table.only("cls_mean") for table in full], 1),
        ("Table A1 (both poolings)", "tablea1", full, 3),
        ("Further tasks", "further", further, 1),
        ("Published Table 2", "published-table2", [published.published_table("table2")], 1),
        ("Published Table A1", "published-tablea1", [published.published_table("tablea1")], 3),
    ]
    present = [group for group in groups if any(table.rows for table in group[2])]
    return [(title, _downloads_of(name, tables, bold)) for title, name, tables, bold in present]


def _downloads_of(name: str, tables: Sequence[Table], bold: int) -> list[tuple[str, str, str]]:
    return [
        (f"{name}.{form}", form, data_uri(convert(tables, bold).encode(), f"{MEDIA[form]};charset=utf-8"))
        for form, convert in table_forms.FORMS.items()
    ]
