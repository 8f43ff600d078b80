"""Attempts: which errors end a series of them, and that Snakemake's are counted."""

import subprocess
import sys
from pathlib import Path

import pytest

from midnight.errors import MidnightError
from midnight.ssl.attempts import attempted
from midnight.ssl.signals import StoppedError

SNAKEFILE = """
rule train:
    output: "model.txt"
    retries: 4
    resources: attempt=lambda wildcards, attempt: attempt
    script: "train.py"
"""
SCRIPT = """
from pathlib import Path
from midnight.logs import redirect
with redirect("train.log"):
    from midnight.ssl.attempts import attempted
    with attempted(Path("run"), snakemake.resources.attempt):
        made = len(list(Path("run/checkpoints").glob("step_*")))
        Path("tries.txt").open("a").write(f"{snakemake.resources.attempt} ")
        if made < 2:
            Path(f"run/checkpoints/step_{made}").mkdir()
        raise ValueError("the same again")
"""


def fail(output: Path, attempt: int, error: Exception, saves: str | None = None) -> None:
    with pytest.raises(type(error)), attempted(output, attempt):
        if saves:
            (output / "checkpoints" / saves).mkdir(parents=True)
        raise error


def test_an_error_with_nothing_saved_ends_the_series(tmp_path: Path) -> None:
    fail(tmp_path, 1, MidnightError("recipe: no such arch"))
    with pytest.raises(MidnightError, match=r"recipe: no such arch \(not tried again"), attempted(tmp_path, 2):
        pytest.fail("tried again")


@pytest.mark.parametrize(
    ("error", "saves"), [(StoppedError("time limit"), None), (RuntimeError("nccl"), "step_00000012")]
)
def test_a_stop_or_an_error_after_a_checkpoint_does_not(tmp_path: Path, error: Exception, saves: str | None) -> None:
    fail(tmp_path, 1, error, saves)
    ran = False
    with attempted(tmp_path, 2):
        ran = True
    assert ran


def test_a_new_series_begins_anew(tmp_path: Path) -> None:
    fail(tmp_path, 1, MidnightError("no room on the disk"))
    with attempted(tmp_path, 1):
        pass
    assert not (tmp_path / "error.txt").exists()


def test_snakemake_counts_the_attempts(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert (tmp_path / "tries.txt").read_text().split() == ["1", "2", "3"]
    assert result.stderr.count("midnight: error: ValueError: the same again (not tried again") == 2
