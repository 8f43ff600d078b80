import subprocess
import sys
from pathlib import Path

import pytest

from midnight.errors import MidnightError
from midnight.locks import claim

HOLDS = """
import sys
from midnight.locks import claim
with open(sys.argv[1], "w") as file:
    claim(file, "busy", "no locks")
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_file_is_one_process_s_until_it_is_closed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "lock")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    file = (tmp_path / "lock").open("w")
    with pytest.raises(MidnightError, match="wait for it"):
        claim(file, "wait for it", "no locks")
    assert file.closed
    holder.communicate("")
    with (tmp_path / "lock").open("w") as file:
        claim(file, "wait for it", "no locks")


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with (tmp_path / "lock").open("w") as file:
        claim(file, "busy", "no locks here")
        assert not file.closed
    assert "no locks here" in caplog.text
