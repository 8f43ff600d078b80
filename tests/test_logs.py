import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from midnight import logs

SCRIPT = """
import os, sys
from midnight.logs import redirect
from midnight.errors import MidnightError
with redirect(sys.argv[1]):
    print("to the log")
    os.system("echo child too")
    {action}
"""


def run(action: str, log: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", SCRIPT.format(action=action), log], capture_output=True, text=True)


def test_output_goes_to_the_log_also_from_children(tmp_path: Path) -> None:
    result = run("pass", tmp_path / "deep" / "a.log")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert set((tmp_path / "deep" / "a.log").read_text().split("\n")) == {"child too", "to the log", ""}


def test_midnight_error_is_one_line_and_status_1(tmp_path: Path) -> None:
    result = run("raise MidnightError('a.svs: broken;\\n  delete it')", tmp_path / "a.log")
    assert result.returncode == 1
    assert result.stderr == "midnight: error: a.svs: broken; delete it\n"
    assert "Traceback" not in (tmp_path / "a.log").read_text()


def test_the_cause_of_a_midnight_error_is_in_the_log(tmp_path: Path) -> None:
    result = run(
        "\n    try: 1 / 0\n    except Exception as error: raise MidnightError('bad.png') from error", tmp_path / "a.log"
    )
    assert (result.returncode, result.stderr) == (1, "midnight: error: bad.png\n")
    assert "ZeroDivisionError" in (tmp_path / "a.log").read_text()


def test_other_errors_leave_their_traceback_in_the_log(tmp_path: Path) -> None:
    result = run("1 / 0", tmp_path / "a.log")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "ZeroDivisionError" in result.stderr
    assert "Traceback" in (tmp_path / "a.log").read_text()


def test_a_process_ends_without_a_last_collection(tmp_path: Path) -> None:
    """Objects in cycles are left to the system; what is waiting in open files is still written."""
    code = (
        "import atexit, sys; from midnight.logs import leave_at_once; leave_at_once();"
        "atexit.register(print, 'at exit'); print('written', end=' ');"
        "Cycle = type('Cycle', (), {'__del__': lambda self: print('collected')}); a = Cycle(); a.self = a; del a"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "written at exit\n", "")


def test_on_a_terminal_a_line_clears_the_workflow_s_status_first(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, terminal = pty.openpty()
    monkeypatch.setattr(logs, "_person", [terminal])
    logs.say("a word")
    assert os.read(ours, 100) == b"\r\x1b[Kmidnight: a word\r\n"
    os.close(ours)
    os.close(terminal)
