"""`--profile slurm` on a real Slurm."""

from pathlib import Path

import pytest

from tests.workflow.harness import REPOSITORY, make_workflow, run_snakemake
from tests.workflow.one_machine_slurm import missing, running_slurm

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_slides_to_tissue_through_slurm_jobs(tmp_path: Path) -> None:
    workflow = make_workflow(tmp_path, {})
    target = "results/tissue/demo/index.parquet"
    with running_slurm(tmp_path / "slurm"):
        arguments = ["--profile", REPOSITORY / "slurm", "--snakefile", REPOSITORY / "Snakefile", "--latency-wait", "5"]
        arguments += ["--slurm-init-seconds-before-status-checks", "2", "--slurm-logdir", tmp_path / "slurm-logs"]
        result = run_snakemake(*arguments, "--configfile", workflow.configfile, "--directory", tmp_path, target)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / target).exists()
    assert (result.stdout + result.stderr).count("has been submitted with SLURM jobid") >= 4
