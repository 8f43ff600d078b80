"""A downstream data set that is not complete ends its own job in one line, before anything is computed from it."""

from pathlib import Path

import pytest

from tests.workflow.harness import make_workflow

pytestmark = pytest.mark.workflow


def test_missing_data_are_named_and_complete_ones_recorded(tmp_path: Path) -> None:
    evaluation = {
        "tasks": ["crc-fields", "mhist", "gleason"],
        "data_root": "data/benchmarks",
        "models": ["midnight-12k"],
    }
    workflow = make_workflow(tmp_path, {"evaluation": evaluation}, base="config")
    for name in ("a", "b"):
        image = tmp_path / "data" / "benchmarks" / "colorectal-cancer" / name / "1.png"
        image.parent.mkdir(parents=True)
        image.write_bytes(b"image")
    result = workflow.run("results/prepared/crc-fields.json", "results/prepared/mhist.json")
    assert result.returncode != 0
    line = next(line for line in result.stderr.splitlines() if line.startswith("midnight: error: "))
    assert "task mhist: data/benchmarks/mhist: absent: annotations.csv, images/*.png (0 of 3,152); get it from" in line
    assert line.endswith("also missing: gleason (see `midnight tasks status`)")
    assert (workflow.results / "prepared" / "crc-fields.json").is_file()
    assert not (workflow.results / "prepared" / "mhist.json").exists()


def test_a_labelled_image_more_makes_its_task_anew_and_no_other(tmp_path: Path) -> None:
    folders = {name: str(tmp_path / name) for name in ("one", "two")}
    evaluation = {"tasks": [], "folders": folders, "models": ["colour-statistics"]}
    workflow = make_workflow(tmp_path, {"evaluation": evaluation}, base="config")
    for name, label in (("one", "a"), ("one", "b"), ("two", "a"), ("two", "b")):
        image = tmp_path / name / label / "1.png"
        image.parent.mkdir(parents=True)
        image.write_bytes(b"image")
    targets = [f"results/prepared/{name}.json" for name in folders]
    result = workflow.run(*targets)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Nothing to be done" in workflow.run("-n", *targets).stdout
    (tmp_path / "two" / "b" / "2.png").write_bytes(b"image")
    plan = workflow.run("-n", *targets).stdout
    assert "Preparing the data of two" in plan
    assert "Preparing the data of one" not in plan
