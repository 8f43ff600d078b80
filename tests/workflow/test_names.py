"""Names with characters that mean something to regular expressions, in real dry runs."""

from pathlib import Path

import pytest

from tests.workflow.harness import make_workflow

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
