"""The report of a workflow that failed: what there is, and which models have no scores and why."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from midnight.paths import Layout
from midnight.report.compose import compose_report

ERRORS = (r" ERROR midnight: (.+)", r"^(\w*(?:Error|Exception)\b.*)")
"""The line of a `MidnightError`, below which the traceback of its cause may stand, and that of any other error."""
LOGGED = ("embed", "score", "init_model", "train")
"""Rules whose logs say why a model has no scores; the first two by model and size."""


def report_partly(
    config: Mapping[str, Any], models: Mapping[str, Any], scores: Mapping[tuple[str, str], Sequence[str]]
) -> dict[str, str]:
    """Write the report of the models that have all their scores, if there are any and others failed.

    Args:
        config: the resolved configuration.
        models: the chosen models' entries by name.
        scores: the score records of each (model, size).

    Returns:
        Why each model failed, by "label at size px"; empty where none has: then nothing is written.
    """
    layout = Layout(config["results_dir"], config["data_dir"])
    failed, there = {}, []
    for (model, size), records in scores.items():
        found = [Path(record) for record in records if Path(record).is_file()]
        there += found
        if len(found) < len(records) and (reason := _reason(layout, models[model], size)):
            failed[f"{models[model].label} at {size} px"] = reason
    if failed and there:
        _write(config, layout, there, failed)
    return failed


def _reason(layout: Layout, model: Any, size: str) -> str:
    """The error of the newest log of a model's jobs that ends in one; empty where none does."""
    names = [f"{model.name}-{size}", f"{model.name}-{size}", model.name, model.run or model.name]
    logs = [Path(layout.log(rule, name)) for rule, name in zip(LOGGED, names, strict=True)]
    for log in sorted(filter(Path.is_file, logs), key=lambda path: path.stat().st_mtime, reverse=True):
        text = log.read_text(encoding="utf-8", errors="replace")
        for pattern in ERRORS:
            if errors := re.findall(pattern, text, re.MULTILINE):
                return str(errors[-1])
    return ""


def _write(config: Mapping[str, Any], layout: Layout, scores: Sequence[Path], failed: Mapping[str, str]) -> None:
    results = Path(config["results_dir"])
    runs = {name: Path(layout.model(name)) for name in config["runs"]}
    compose_report(
        config=config,
        scores=scores,
        slides=_there(path for cohort in config["cohorts"] for path in results.glob(f"slides/{cohort}/*.tsv")),
        tissue=_there(Path(layout.tissue_index(cohort)) for cohort in config["cohorts"]),
        runs={name: folder for name, folder in runs.items() if (folder / "model.json").is_file()},
        figure_files=[],
        benchmarks=results / "benchmarks",
        output=Path(layout.report()),
        failed=failed,
        manifests=_there(Path(layout.manifest(cohort)) for cohort in config["cohorts"]),
        tile_lists=_there(Path(layout.tile_list(name)) for name in config["tile_folders"]),
    )


def _there(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.is_file())
