"""`--profile slurm` on a real Slurm."""

import json
import os
import subprocess
import sys
import time
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


SNAKEFILE = f"""
include: "{REPOSITORY}/rules/handlers.smk"

onstart:
    know_slurm_ends()

rule train:
    output: "model.txt"
    retries: 2
    resources: runtime=5, mem_mb=100, slurm_partition="gpu"
    shell: "if [ -e begun ]; then echo done > {{output}}; else touch begun; sleep 300; fi"
"""


def test_a_preempted_job_is_run_again(tmp_path: Path) -> None:
    """On the plugin alone the workflow waits for ever: PREEMPTED is no end to it, and then the job is gone."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    arguments = ["--executor", "slurm", "--jobs", "2", "--slurm-no-requeue", "--slurm-status-command", "squeue"]
    arguments += ["--slurm-init-seconds-before-status-checks", "1", "--slurm-logdir", str(tmp_path / "logs")]
    command = [sys.executable, "-m", "snakemake", "-s", "Snakefile", *arguments]
    with running_slurm(tmp_path / "slurm"), subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as run:
        try:
            wait_for(tmp_path / "begun")
            subprocess.run(
                ["sbatch", "-p", "urgent", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1"], check=True
            )
            _, errors = run.communicate(timeout=120)
        finally:
            run.kill()
    assert run.returncode == 0, errors.decode()
    assert (tmp_path / "model.txt").read_text() == "done\n"


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.2)


@pytest.mark.skipif(
    not STEPS, reason="minutes: set MIDNIGHT_LIMIT_STEPS to as many steps as take half a minute or more"
)
def test_a_run_longer_than_its_time_limit_goes_on_in_the_next_job(tiny_demo: Workflow, tmp_path: Path) -> None:
    """Slurm's warning comes two minutes before the limit of three: training saves, ends with 75, and is run again."""
    training = {
        "iterations": STEPS,
        "batch_size": 8,
        "accumulation": 1,
        "checkpoint_every": 100_000,
        "log_every": 1,
        "probe_every": 0,
        "workers": 0,
    }
    change = {
        "cohorts": {"local": {"path": str(tiny_demo.folder / "data" / "demo-slides")}},
        "runs": {"local": {"recipe": "vits-1gpu", "override": {"training": training, "backbone": {"init": "random"}}}},
        "evaluation": {"folders": {"tiles": str(tiny_demo.folder)}},
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
