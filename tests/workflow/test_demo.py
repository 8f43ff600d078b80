"""The whole chain on a small demo: every link real, the report says what happened."""

import json
import subprocess

import pytest

from midnight.evaluate.records import read_records
from midnight.slides.quarantine import read_statuses
from midnight.tissue.index import read_index
from tests.workflow.harness import Workflow

pytestmark = [pytest.mark.workflow]


def test_damaged_slides_are_quarantined_and_the_run_goes_on(tiny_demo: Workflow) -> None:
    (table,) = (tiny_demo.results / "slides" / "demo").glob("*.tsv")
    reasons = {row.status: row.reason for row in read_statuses(table)}
    bad = [row.reason for row in read_statuses(table) if row.status == "quarantined"]
    assert len(bad) == 2, reasons
    assert any("size mismatch" in reason for reason in bad)
    assert any("md5 mismatch" in reason for reason in bad)
    index = read_index(tiny_demo.results / "tissue" / "demo" / "index.parquet")
    assert sum(record.ok for record in index) == 2


def test_every_cell_has_a_demo_record(tiny_demo: Workflow) -> None:
    records = read_records(tiny_demo.results / "scores")
    cells = {(record.model, record.pooling, record.task) for record in records}
    assert len(cells) == 2 * 2 * 2
    assert {record.data for record in records} == {"demo"}
    assert all(record.provenance["lock"] for record in records)


def test_the_report_tells_it(tiny_demo: Workflow) -> None:
    page = (tiny_demo.results / "report.html").read_text()
    assert "not comparable with published numbers" in page
    assert "md5 mismatch" in page
    assert "size mismatch" in page
    assert page.count("data:image/") >= 7
    assert 'src="http' not in page
    for name in ("table2.csv", "tablea1.tex", "further.md"):
        assert (tiny_demo.results / "tables" / name).exists()


def test_the_model_loads_by_plain_timm(tiny_demo: Workflow) -> None:
    import timm
    from safetensors.torch import load_file

    folder = tiny_demo.results / "models" / "demo"
    card = json.loads((folder / "model.json").read_text())
    model = timm.create_model(card["arch"], pretrained=False, num_classes=0, **card["kwargs"])
    assert not any(model.load_state_dict(load_file(folder / "teacher.safetensors")))
    assert card["data"] == "demo"


def test_the_service_has_ended_with_the_workflow(tiny_demo: Workflow) -> None:
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert f"{tiny_demo.folder}" not in "\n".join(line for line in running.splitlines() if "gdc_service" in line)
