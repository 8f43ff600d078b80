"""Ctrl-C to a running workflow, as a terminal sends it: to Snakemake, its jobs and all that these started."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.waiting import comes_true
from tests.workflow.harness import Workflow, copy_workflow

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
TARGET = "results/models/demo/teacher.safetensors"


@pytest.mark.parametrize(("processes", "workers"), [(1, 2), (2, 1)])
def test_an_interrupted_workflow_has_saved_its_training_and_goes_on_from_there(
    tiny_demo: Workflow, tmp_path: Path, processes: int, workers: int
) -> None:
    training = {"gpus": processes, "batch_size": 4 // processes, "workers": workers}
    training |= {"iterations": 300, "checkpoint_every": 1000}
    workflow = copy_workflow(tiny_demo, tmp_path, {"runs": {"demo": {"override": {"training": training}}}})
    (tmp_path / TARGET).unlink()  # of the copied run
    metrics = tmp_path / "results/models/demo/metrics.jsonl"
    metrics.unlink()
    process = subprocess.Popen(
        workflow.command(TARGET), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    trains = comes_true(lambda: metrics.exists() and metrics.read_text().count("\n") > 2, process, seconds=400)
    if trains:
        os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=400)
    assert trains, output
    assert process.returncode != 0
    assert "Traceback" not in output
    assert "midnight: SIGINT: saves what is trained so far, then ends; please wait" in output
    (saved,) = (tmp_path / "results/models/demo/checkpoints").glob("step_*")
    step = int(saved.name.removeprefix("step_"))
    assert 0 < step < 300
    result = workflow.run(TARGET)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"resumed from step {step}" in (tmp_path / "results/logs/train/demo.log").read_text()
    lines = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert lines[-1] == 300
    assert sorted(set(lines)) == lines
