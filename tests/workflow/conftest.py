"""One small demo, run once for all workflow tests."""

import os

import pytest
from filelock import FileLock

from tests.workflow.harness import Snakemake, Workflow, make_workflow, run_snakemake


@pytest.fixture(scope="session")
def snakemake() -> Snakemake:
    return run_snakemake


@pytest.fixture(scope="session")
def tiny_demo(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The whole chain, run once for all workers of the test run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "tiny-demo"
    with FileLock(str(shared / "tiny-demo.lock")):
        if not folder.exists():
            folder.mkdir()
            result = make_workflow(folder, {}).run("all")
            assert result.returncode == 0, result.stdout + result.stderr
    return Workflow(folder, folder / "config.yaml")
