"""Permanent errors are not tried again, others are: with real Snakemake."""

import subprocess
import sys
from pathlib import Path

import pytest

SNAKEFILE = """
onstart:
    from midnight.screen.permanent import retry_no_permanent_errors
    retry_no_permanent_errors()

rule score:
    output: "scores.txt"
    log: "score.log"
    retries: 3
    script: "score.py"
"""
SCRIPT = """
from midnight.logs import redirect
with redirect(snakemake.log[0]):
    from midnight.errors import ConfigError, MidnightError
    print("x", file=open("tries.txt", "a"), end="")
    raise {error}("config.yaml: seed: is wrong")
"""


def tries(folder: Path, error: str) -> int:
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "score.py").write_text(SCRIPT.replace("{error}", error))
    (folder / "tries.txt").write_text("")
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 1
    assert "midnight: error: config.yaml: seed: is wrong" in result.stderr
    return len((folder / "tries.txt").read_text())


@pytest.mark.slow
def test_an_error_of_the_configuration_is_not_tried_again_and_others_are(tmp_path: Path) -> None:
    assert tries(tmp_path, "ConfigError") == 1
    assert tries(tmp_path, "MidnightError") == 4, "the mark of the run before does not count"
