"""The chain on real slides and real labelled fields, as a local cohort and a custom tile task."""

from pathlib import Path

import pytest

from midnight.evaluate.records import read_records
from midnight.tissue.index import read_index
from tests.workflow.harness import make_workflow

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_real_slides_to_a_report_marked_as_real(real_data: Path, tmp_path: Path) -> None:
    training = {"iterations": 2, "batch_size": 4, "log_every": 1, "workers": 0}
    small = {"training": training, "crops": {"n_local": 2}, "backbone": {"kwargs": {"depth": 1}}}
    change = {
        "cohorts": {"local": {"path": str(real_data / "wsi")}},
        "runs": {"local": {"override": small | {"heads": {"prototypes": 64, "hidden": 64, "bottleneck": 32}}}},
        "evaluation": {"folders": {"tiles": str(real_data / "labelled" / "colorectal-cancer")}, "protocol": "demo"},
    }
    workflow = make_workflow(tmp_path, change, base="local")
    result = workflow.run("all")
    assert result.returncode == 0, result.stdout + result.stderr
    index = read_index(workflow.results / "tissue" / "local" / "index.parquet")
    assert {Path(record.path).name for record in index if record.ok} == {"cmu-1-small-region.svs"}
    reasons = {Path(record.path).name: record.reason for record in index if not record.ok}
    assert "no resolution" in reasons["tcga-cr-7395-01a-01-ts1.svs"]
    assert len(reasons) == 3
    assert all(reasons.values())
    records = read_records(workflow.results / "scores")
    assert {(record.model, record.data) for record in records} == {
        (model, "real") for model in ("colour-statistics", "local", "local-random")
    }
    assert {(record.task, record.column, record.split) for record in records} == {("tiles", "tiles", "val")}
    page = (workflow.results / "report.html").read_text()
    assert "real data" in page
    assert "tiles: random halves of the images; no column, sub-folder or file name says" in page
    assert "not comparable with published numbers" not in page
