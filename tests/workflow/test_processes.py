"""A run of several processes, as the workflow starts it on a machine without a GPU."""

from pathlib import Path

import pytest

from tests.workflow.harness import Workflow, copy_workflow

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_the_workflow_starts_as_many_processes_as_the_recipe_asks_for(tiny_demo: Workflow, tmp_path: Path) -> None:
    training = {"gpus": 2, "batch_size": 2, "iterations": 6}
    workflow = copy_workflow(tiny_demo, tmp_path, {"runs": {"demo": {"override": {"training": training}}}})
    target = "results/models/demo/teacher.safetensors"
    (tmp_path / target).unlink()  # of the copied run
    result = workflow.run(target)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / target).exists()
    parts = [path.name for path in sorted((tmp_path / "results/models/demo/checkpoints/step_00000006").iterdir())]
    assert parts == ["checkpoint.json", "shard-00000.safetensors", "shard-00001.safetensors"]
