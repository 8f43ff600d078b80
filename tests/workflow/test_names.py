"""Names: with characters that mean something to regular expressions, and in any order."""

import json
from pathlib import Path

import pytest
import yaml

from midnight.config import read_yaml
from tests.workflow.harness import TINY_RUN, Workflow, copy_workflow, make_workflow

pytestmark = [pytest.mark.workflow]


@pytest.mark.parametrize("name", ["own+tcga", "run(1)", "v1.0", "a|b", "x*"])
def test_a_name_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    workflow = make_workflow(
        tmp_path,
        {
            "cohorts": {name: {"source": "gdc"}},
            "runs": {name: {"recipe": "demo", "cohorts": {name: 1, "demo": 2}}},
            "evaluation": {"folders": {"f.1": str(tmp_path)}},
        },
    )
    result = workflow.run("-n", f"results/models/{name}/teacher.safetensors")
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"Training {name}" in result.stdout
    assert f"Joining the tissue index of {name}" in result.stdout
    assert "Training demo\n" not in result.stdout


@pytest.mark.parametrize("predrawn", [None, {"count": 24}])
def test_each_cohort_keeps_its_own_slides_and_share(
    tiny_demo: Workflow, tmp_path: Path, predrawn: dict[str, int] | None
) -> None:
    """Also where they are not in the order of the alphabet."""
    override = TINY_RUN | {"tiles": {"mpps": [0.5, 1.0], "predrawn": predrawn}}
    run = {"recipe": "demo", "cohorts": {"demo": 3, "alpha": 1}, "override": override}
    cohorts = {"alpha": {"source": "local", "path": "data/demo"}}
    workflow = copy_workflow(tiny_demo, tmp_path, {"cohorts": cohorts, "runs": {"both": run}})
    value = read_yaml(workflow.configfile)
    value["runs"]["both"]["cohorts"] = {"demo": 3, "alpha": 1}
    workflow.configfile.write_text(yaml.safe_dump(value, sort_keys=False))
    result = workflow.run("results/models/both/teacher.safetensors")
    assert result.returncode == 0, result.stdout + result.stderr
    job = json.loads((workflow.results / "models" / "both" / "job.json").read_text())
    assert job["cohorts"] == {
        name: [f"results/tissue/{name}/index.parquet", share] for name, share in (("alpha", 1), ("demo", 3))
    }
    assert {name: Path(path).parent.name for name, path in job["manifests"].items()} == {
        "alpha": "alpha",
        "demo": "demo",
    }
