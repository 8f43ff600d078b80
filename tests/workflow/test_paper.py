"""The paper's configuration: the whole plan, without a single slide."""

import re
import uuid
from pathlib import Path

import pytest

from tests.workflow.harness import Snakemake

pytestmark = pytest.mark.workflow

SLIDES = 11_765
SHARDS = 184


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest in GDC's own form with as many slides as TCGA has FFPE slides."""
    path = tmp_path_factory.mktemp("manifest") / "gdc_manifest.txt"
    rows = ["id\tfilename\tmd5\tsize\tstate"]
    for number in range(SLIDES):
        file_id = uuid.UUID(int=number)
        name = f"TCGA-{number % 90:02d}-{number:04X}-01Z-00-DX1.{uuid.UUID(int=number + 1)}.svs"
        rows.append(f"{file_id}\t{name}\t{number:032x}\t{1_000_000_000 + number}\treleased")
    path.write_text("\n".join(rows) + "\n")
    return path


def jobs(text: str) -> dict[str, int]:
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", text, re.MULTILINE)}


def test_the_whole_plan_is_built_from_a_pinned_manifest(snakemake: Snakemake, manifest: Path, tmp_path: Path) -> None:
    pin = f"{{tcga-ffpe: {{manifest: {manifest}}}}}"
    arguments = ["--profile", "slurm", "-n", "--quiet", "rules", "all"]
    result = snakemake(*arguments, "--config", f"cohorts={pin}", f"results_dir={tmp_path}")
    assert result.returncode == 0, result.stderr
    plan = jobs(result.stdout + result.stderr)
    assert plan["fetch_slides"] == plan["segment_tissue"] == SHARDS
    assert plan["train"] >= 2
    assert plan["prepare_task"] == 20
    assert plan["embed"] == plan["score"] >= 10
    assert plan["report"] == 1
    assert not list(tmp_path.iterdir())


def test_without_a_pin_the_plan_starts_by_asking_the_gdc(snakemake: Snakemake, tmp_path: Path) -> None:
    result = snakemake("--profile", "slurm", "-n", "--quiet", "rules", "all", "--config", f"results_dir={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert jobs(result.stdout + result.stderr)["pin_manifest"] == 1
