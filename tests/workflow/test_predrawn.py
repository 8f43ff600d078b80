"""Tiles drawn beforehand: from slides to training through the workflow, and the paper's plan."""

import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from midnight.config import merge
from midnight.tiles.predrawn.index import read_index
from tests.workflow.harness import TINY_RUN, Workflow, copy_workflow, make_workflow

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
TILES = {"predrawn": {"count": 60}, "mpps": [0.5, 1.0]}
OVERRIDE = merge(TINY_RUN, {"tiles": TILES, "training": {"iterations": 2}})
RUN: dict[str, Any] = {"recipe": "demo", "cohorts": {"demo": 1}, "override": OVERRIDE}


def jobs(text: str) -> dict[str, int]:
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", text, re.MULTILINE)}


@pytest.fixture(scope="module")
def workflow(tiny_demo: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """Two runs that differ in nothing that their tiles depend on; 60 tiles in five shards, drawn by two jobs."""
    change = {
        "draw": {"tiles_per_shard": 12, "shards_per_job": 3, "workers": 1},
        "runs": {"drawn": RUN, "again": merge(RUN, {"override": {"seed": 7, "tiles": {"hed_sigma": 0.1}}})},
    }
    made = copy_workflow(tiny_demo, tmp_path_factory.mktemp("predrawn"), change)
    # Here and not in a test: which of them is first depends on how the tests are spread over processes.
    result = made.run(*models("drawn"))
    assert result.returncode == 0, result.stdout + result.stderr
    return made


def models(*runs: str) -> list[str]:
    return [f"results/models/{run}/teacher.safetensors" for run in runs]


def test_a_run_trains_on_tiles_drawn_beforehand(workflow: Workflow) -> None:
    folder = next(folder for folder in (workflow.results / "tiles").iterdir() if folder.name.startswith("demo-60-"))
    assert len(read_index(folder / "index.arrow")) == 60
    assert len(list((folder / "parts").iterdir())) == 2
    assert json.loads((folder / "plan.json").read_text())["tiles"] == 60
    log = (workflow.results / "logs" / "plan_tiles" / f"{folder.name}.log").read_text()
    assert re.search(r"disk +[\d.]+ [kM]B in 5 shards", log)
    model = workflow.results / "models" / "drawn"
    assert json.loads((model / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 2
    assert "predrawn tiles" in (model / "model.json").read_text()


def test_runs_share_a_set_and_online_runs_need_none(workflow: Workflow) -> None:
    online = {"runs": {"demo": {"override": {"seed": 7}}}}
    result = workflow.run("-n", *models("drawn", "again", "demo"), change=online)
    plan = jobs(result.stdout)
    assert plan.keys() - {"total"} == {"train"}
    assert plan["train"] == 2


def test_settings_of_the_jobs_draw_nothing_again(workflow: Workflow) -> None:
    result = workflow.run("-n", *models("drawn"), change={"draw": {"workers": 2}})
    assert jobs(result.stdout).keys() - {"total"} == {"plan_tiles"}, "the hours in the plan"


def test_a_deleted_shard_is_drawn_again_alone(workflow: Workflow) -> None:
    """As the message of a damaged shard says."""
    (folder,) = (workflow.results / "tiles").iterdir()
    shard, other = folder / "shards" / "00002.tar", folder / "shards" / "00001.tar"
    before, index, unchanged = shard.read_bytes(), (folder / "index.arrow").read_bytes(), other.stat().st_mtime_ns
    shard.unlink()
    result = workflow.run(f"results/tiles/{folder.name}/index.arrow", "--forcerun", "draw_tiles")
    assert result.returncode == 0, result.stdout + result.stderr
    assert shard.read_bytes() == before
    assert (folder / "index.arrow").read_bytes() == index
    assert other.stat().st_mtime_ns == unchanged


def test_other_tiles_are_another_set(workflow: Workflow) -> None:
    change = {"runs": {"again": {"override": {"tiles": {"hsv_filter": {"min_fraction": 0.5}}}}}}
    result = workflow.run("-n", *models("drawn", "again"), change=change)
    plan = jobs(result.stdout)
    assert (plan["plan_tiles"], plan["draw_tiles"], plan["join_tiles"], plan["train"]) == (1, 2, 1, 1)


def test_the_papers_100_million_tiles_are_100_jobs(tmp_path: Path) -> None:
    manifest = tmp_path / "gdc_manifest.txt"
    rows = ["id\tfilename\tmd5\tsize\tstate"]
    for number in range(640):
        name = f"TCGA-{number % 90:02d}-{number:04X}-01Z-00-DX1.{uuid.UUID(int=number + 1)}.svs"
        rows.append(f"{uuid.UUID(int=number)}\t{name}\t{number:032x}\t{1_000_000_000 + number}\treleased")
    manifest.write_text("\n".join(rows) + "\n")
    runs = {name: {"recipe": name, "cohorts": {"tcga-ffpe": 1}} for name in ("tcga-100M", "openmidnight")}
    change = {"cohorts": {"tcga-ffpe": {"manifest": str(manifest)}}, "runs": runs}
    workflow = make_workflow(tmp_path, change, base="config")
    result = workflow.run("-n", *models("tcga-100M", "openmidnight", "midnight-12k"))
    assert result.returncode == 0, result.stdout + result.stderr
    plan = jobs(result.stdout)
    assert (plan["plan_tiles"], plan["draw_tiles"], plan["join_tiles"], plan["train"]) == (2, 100 + 29, 2, 3)
    assert "100,000,000 tiles in 10,000 shards, 100 jobs" in result.stdout
