"""`--profile slurm` on a real Slurm."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.workflow.harness import REPOSITORY, Workflow, make_workflow, run_snakemake
from tests.workflow.one_machine_slurm import missing, running_slurm

STEPS = int(os.environ.get("MIDNIGHT_LIMIT_STEPS", 0))
"""Of ViT-S/14; with the imports they must exceed the minute that a job has, and not six such minutes."""
needs_slurm = pytest.mark.skipif(missing() is not None, reason=missing() or "")
pytestmark = [pytest.mark.workflow, pytest.mark.slow, needs_slurm]


def run_on_slurm(workflow: Workflow, target: str, *more: str) -> "subprocess.CompletedProcess[str]":
    arguments = ["--profile", REPOSITORY / "slurm", "--snakefile", REPOSITORY / "Snakefile", "--latency-wait", "5"]
    arguments += ["--slurm-init-seconds-before-status-checks", "2", "--slurm-logdir", workflow.folder / "slurm-logs"]
    with running_slurm(workflow.folder / "slurm"):
        return run_snakemake(
            target, *arguments, "--configfile", workflow.configfile, "--directory", workflow.folder, *more
        )


def test_slides_to_tissue_through_slurm_jobs(tmp_path: Path) -> None:
    target = "results/tissue/demo/index.parquet"
    result = run_on_slurm(make_workflow(tmp_path, {}), target)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / target).exists()
    assert (result.stdout + result.stderr).count("has been submitted with SLURM jobid") >= 4


@pytest.mark.skipif(
    not STEPS, reason="minutes: set MIDNIGHT_LIMIT_STEPS to as many steps as take half a minute or more"
)
def test_a_run_longer_than_its_time_limit_goes_on_in_the_next_job(tiny_demo: Workflow, tmp_path: Path) -> None:
    """Slurm's warning comes two minutes before the limit of three: training saves, ends with 75, and is run again."""
    training = {"iterations": STEPS, "checkpoint_every": 100_000, "log_every": 1, "probe_every": 0, "workers": 0}
    change = {
        "cohorts": {"local": {"path": str(tiny_demo.folder / "data" / "demo-slides")}},
        "runs": {"local": {"override": {"training": training}}},
        "evaluation": {"folders": {"tiles": "none"}},
    }
    limits = [
        "--set-resources",
        "train:runtime=3",
        "train:mem_mb=4000",
        "train:slurm_partition=gpu",
        "--set-threads",
        "train=1",
    ]
    target = "results/models/local/teacher.safetensors"
    result = run_on_slurm(make_workflow(tmp_path, change, base="local"), target, *limits)
    assert result.returncode == 0, result.stdout + result.stderr
    log = (tmp_path / "results" / "logs" / "train" / "local.log").read_text()
    assert "resumed from step" in log
    metrics = (tmp_path / target).with_name("metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics] == list(range(1, STEPS + 1))
