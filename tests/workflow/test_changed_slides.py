"""A folder of slides that changes between two runs: what depends on the changed slides is made anew, and no more."""

import os
from pathlib import Path

import pytest

from midnight.slides.sharding import cut_manifest
from midnight.tissue.index import read_index
from tests.tissue.small_slides import tissue_image, write_slide
from tests.workflow.harness import Workflow, make_workflow

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

INDEX = "results/tissue/local/index.parquet"
COMMON = {
    "cohorts/local/manifest.tsv",
    *(f"tissue/local/{name}" for name in ("index.parquet", "index.masks", "qc.html")),
}


def outputs(workflow: Workflow) -> dict[str, int]:
    """When each result was written."""
    folders = ("cohorts", "slides", "tissue")
    paths = [path for name in folders for path in (workflow.results / name).rglob("*") if path.is_file()]
    return {path.relative_to(workflow.results).as_posix(): path.stat().st_mtime_ns for path in paths}


def made(workflow: Workflow) -> set[str]:
    """Make the tissue index; the names of the results that are new."""
    before = outputs(workflow)
    result = workflow.run(INDEX)
    assert result.returncode == 0, result.stdout + result.stderr
    return {name for name, time in outputs(workflow).items() if before.get(name) != time}


def is_done(workflow: Workflow) -> bool:
    """Whether a run would have nothing to do."""
    result = workflow.run("-n", INDEX)
    assert result.returncode == 0, result.stdout + result.stderr
    return "Nothing to be done" in result.stdout + result.stderr


def of_cohort(*shards: str) -> set[str]:
    """What is written where these shards changed."""
    forms = ("cohorts/local/shards/{}.tsv", "slides/local/{}.tsv", "tissue/local/{}.parquet")
    return COMMON | {form.format(shard) for form in forms for shard in shards}


def shards(workflow: Workflow) -> dict[str, list[str]]:
    """The ids of the slides of each shard."""
    found = cut_manifest(workflow.results / "cohorts" / "local" / "manifest.tsv", 1)
    return {name: [slide.slide_id for slide in slides] for name, slides in found.items()}


def due(workflow: Workflow, known: dict[str, list[str]], changed: str = "") -> set[str]:
    """The shards that have other slides than when they were made, and that of the changed slide; they are made now."""
    found = {
        name: slides for name, slides in shards(workflow).items() if known.get(name) != slides or changed in slides
    }
    known |= found
    return set(found)


def slide(folder: Path, name: str, seed: int) -> Path:
    return write_slide(folder / name, tissue_image(700, 700, [(60, 60, 580, 580)], seed), 0.5)


def test_each_kind_of_change_reruns_what_depends_on_it(tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    paths = [slide(folder, f"{name}.svs", number) for number, name in enumerate("abc")]
    change = {
        "cohorts": {"local": {"path": str(folder)}},
        "shard_size": 1,
        "evaluation": {"folders": {"tiles": str(tmp_path)}, "models": []},
        "tissue": {"workers": 1},
    }
    workflow = make_workflow(tmp_path, change, base="local")
    known: dict[str, list[str]] = {}
    assert made(workflow) == of_cohort(*due(workflow, known))
    assert len(known) == 3
    assert is_done(workflow)

    # replaced in place by one of the same sizes in px and bytes: only its time tells
    before = {record.slide_id: record for record in read_index(workflow.folder / INDEX)}
    os.utime(slide(folder, "b.svs", 1), (0, before["b"].modified + 60))
    assert before["b"].file_size == (folder / "b.svs").stat().st_size
    assert made(workflow) == of_cohort(*due(workflow, known, "b"))

    # a new one, and one damaged
    slide(folder, "d.svs", 4)
    data = paths[2].read_bytes()
    paths[2].write_bytes(data[:5000])
    found = made(workflow)
    assert found == of_cohort(*due(workflow, known, "c"))
    assert len(found & of_cohort(*shards(workflow))) < len(of_cohort(*shards(workflow)))
    assert [record.ok for record in read_index(workflow.folder / INDEX)] == [True, True, False, True]

    # repaired, and one removed
    paths[2].write_bytes(data)
    (folder / "d.svs").unlink()
    assert made(workflow) == of_cohort(*due(workflow, known, "c"))
    assert [(record.slide_id, record.ok) for record in read_index(workflow.folder / INDEX)] == [
        ("a", True), ("b", True), ("c", True)
    ]  # fmt: skip

    # an archived folder, or an empty mount point, is no reason to make anything anew
    folder.rename(tmp_path / "archive")
    assert is_done(workflow)
    folder.mkdir()
    assert is_done(workflow)
    folder.rmdir()
    (tmp_path / "archive").rename(folder)
    assert is_done(workflow)
