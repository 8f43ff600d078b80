"""Training on folders of images, without slides: from the folder to the report."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from midnight.config import merge
from tests.tiles.folders.images import write_images
from tests.workflow.harness import TINY_RUN, Workflow
from tests.workflow.matrix import plan, reasons

pytestmark = [pytest.mark.workflow]
OVERRIDE = merge(TINY_RUN, {"tiles": {"size": 112}, "crops": {"global_size": 98}, "training": {"workers": 1}})
RUN: dict[str, Any] = {"recipe": "demo", "tile_folders": {"packed": 1, "images": 3}, "override": OVERRIDE}


@pytest.fixture(scope="module")
def workflow(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    folder = tmp_path_factory.mktemp("tiles")
    write_images(folder / "images", [f"case-{number % 3}/{number}.png" for number in range(30)], 128, 120)
    (folder / "images" / "broken.jpg").write_bytes(b"no image")
    write_images(folder / "loose", [f"{number}.jpg" for number in range(9)], 112, 112)
    (folder / "packed").mkdir()
    with tarfile.open(folder / "packed" / "0.tar", "w") as archive:
        for path in sorted((folder / "loose").iterdir()):
            archive.add(path, path.name)
    value = {
        "results_dir": "results",
        "data_dir": "data",
        "tile_folders": {"packed": "packed", "images": "images"},
        "runs": {"own": RUN},
        "evaluation": {"models": [], "tasks": []},
    }
    made = Workflow(folder, folder / "config.yaml")
    made.configfile.write_text(yaml.safe_dump(value, sort_keys=False))
    result = made.run("all")
    assert result.returncode == 0, result.stdout + result.stderr
    return made


def test_a_model_is_trained_and_the_report_counts_the_images(workflow: Workflow) -> None:
    model = workflow.results / "models" / "own"
    assert json.loads((model / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 4
    assert {"packed", "images"} <= set(json.loads((model / "model.json").read_text())["provenance"]["inputs"])
    job = json.loads((model / "job.json").read_text())
    assert job["cohorts"] == {
        name: [f"results/tile_folders/{name}.tiles.parquet", share]
        for name, share in (("images", 3.0), ("packed", 1.0))
    }
    page = (workflow.results / "report.html").read_text()
    assert "Folders of tiles" in page and "This run read no slides." in page
    assert '<tr><th scope="row">images</th><td class="num">30</td><td class="num">1</td></tr>' in page
    assert '<code>broken.jpg</code></th><td class="reason">not an image</td>' in page


def test_a_new_image_lists_its_folder_and_trains_again_and_nothing_else_does(workflow: Workflow) -> None:
    again = workflow.run("-n", "all")
    assert "Nothing to be done" in again.stdout + again.stderr
    assert reasons(plan(workflow, {"draw": {"workers": 2}})).keys() <= {"Writing results/report.html"}
    write_images(workflow.folder / "images", ["more.png"], 128, 120, seed=9)
    jobs = reasons(plan(workflow, {}))
    assert jobs["Listing the tiles of images"].startswith("Params have changed")
    assert "Training own" in jobs and "Listing the tiles of packed" not in jobs
    (workflow.folder / "images" / "more.png").unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"runs": {"own": {"tile_folders": {"image": 1}}}}, "runs.own.tile_folders: no entry 'image'; did you mean"),
        ({"runs": {"own": {"cohorts": {"c": 1}}}, "cohorts": {"c": {"source": "gdc"}}}, "has cohorts and tile_folders"),
        ({"tile_folders": {"images": "nowhere"}}, "tile_folders.images: nowhere is not there"),
        ({"runs": {"own": {"override": {"tiles": {"predrawn": {"count": 9}}}}}}, "tiles.predrawn: is for slides"),
    ],
)
def test_what_is_wrong_is_said_at_start(workflow: Workflow, change: dict[str, Any], words: str) -> None:
    result = workflow.run("-n", "all", change=change)
    assert result.returncode != 0
    assert words in result.stdout + result.stderr


def test_a_folder_without_images_is_an_error_of_its_own(workflow: Workflow, tmp_path: Path) -> None:
    result = workflow.run("results/tile_folders/empty.tiles.parquet", change={"tile_folders": {"empty": str(tmp_path)}})
    assert result.returncode != 0
    assert "no image to train on in 0 files" in result.stdout + result.stderr
