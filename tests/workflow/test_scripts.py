"""What the workflow's scripts read besides their rule's params."""

import re
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"
# Places, numbers of workers and of connections, accounts: with others a job makes the same outputs. What of these parts
# does matter is among the rule's params too, so that a change reruns it.
LOOKED_UP = {"evaluation", "features", "tissue", "gdc", "cohorts", "runs", "mlflow", "results_dir", "shard_size"}


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.stem)
def test_what_makes_another_output_comes_by_params(script: Path) -> None:
    text = script.read_text()
    looked_up = set(re.findall(r"\bconfig(?:\(snakemake\.config, \"config\"\))?\.(\w+)", text))
    assert looked_up <= LOOKED_UP
