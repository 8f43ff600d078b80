"""Features of a cohort's slides, by shard, and what a change makes anew."""

from pathlib import Path

import h5py
import pytest

from midnight.mil.ledger import read_table
from tests.tissue.small_slides import tissue_image, write_slide
from tests.workflow.harness import TINY_RUN, make_workflow

pytestmark = [pytest.mark.workflow]
TABLE = "results/features/local-random/local/slides.tsv"


def test_a_cohorts_slides_become_files_and_a_table(tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    for number in range(3):
        image = tissue_image(900, 900, [(60, 60, 780, 780)], seed=number)
        write_slide(folder / f"s{number}.svs", image, 0.5)
    (folder / "page.svs").write_text("<html>")
    change = {
        "cohorts": {"local": {"path": str(folder)}},
        "runs": {"local": {"override": TINY_RUN}},
        "features": {"models": ["local-random"], "mpp": 1.0, "size": 56},
        "evaluation": {"workers": 1, "folders": {"tiles": str(folder)}},
        "shard_size": 2,
    }
    workflow = make_workflow(tmp_path, change, base="local")
    result = workflow.run(TABLE)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = {row.slide_id: row for row in read_table(tmp_path / TABLE)}
    assert {name: row.status for name, row in rows.items()} == {"page": "failed", "s0": "ok", "s1": "ok", "s2": "ok"}
    files = (tmp_path / TABLE).parent / "h5_files"
    with h5py.File(files / "s1.h5") as file:
        assert file["features"].shape == (rows["s1"].tiles, 48) and file["coords"].attrs["mpp"] == 1.0
    again = workflow.run(TABLE)
    assert "Nothing to be done" in again.stdout + again.stderr
    stamps = {path.name: path.stat().st_mtime_ns for path in files.iterdir()}
    result = workflow.run(TABLE, change={"features": {"overlap": 28}})
    assert result.returncode == 0, result.stdout + result.stderr
    assert all(path.stat().st_mtime_ns != stamps[path.name] for path in files.iterdir())
    with h5py.File(files / "s1.h5") as file:
        assert len(file["features"]) > 2 * rows["s1"].tiles


def test_a_model_that_is_none_is_one_line(tmp_path: Path) -> None:
    workflow = make_workflow(tmp_path, {"features": {"models": ["nobody"]}})
    result = workflow.run("-n", "all")
    assert result.returncode != 0
    assert "features.models: no model 'nobody'" in result.stdout + result.stderr


def test_all_includes_features_where_models_are_named(tmp_path: Path) -> None:
    workflow = make_workflow(tmp_path, {})
    plain, more = (workflow.run("-n", "all", change={"features": {"models": names}}) for names in ([], ["demo-random"]))
    assert plain.returncode == more.returncode == 0
    assert "join_features" in more.stdout and "join_features" not in plain.stdout
