"""Ctrl-C and SIGTERM to whole process groups: one line, a status that says so, and nobody left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.waiting import comes_true

REDIRECTED = """
import sys, threading
from pathlib import Path
from midnight.logs import redirect
folder = Path(sys.argv[1])
with redirect(folder / "log.txt"):
    {body}
"""
THREADS = """
    from midnight.atomic import atomic_path
    from midnight.pools import thread_pool
    with thread_pool(2) as pool, atomic_path(folder / "result.txt"):
        for number in range(9):
            pool.submit(threading.Event().wait)
        (folder / "busy").touch()
        pool.submit(int).result()
"""
FORKS = """
    import time
    from midnight.evaluate.workers import run_calls
    def wait(number):
        (folder / f"busy{number}").touch()
        time.sleep(1000)
    import functools
    calls = [functools.partial(time.sleep, 1000)] * 2
    (folder / "busy").touch()
    list(run_calls([functools.partial(wait, 0)], calls, 2))
"""
LOKY = """
    import time
    from midnight.demo.parallel import run_all
    from tests.test_interrupts import touch_and_wait
    run_all(touch_and_wait, [(folder / "busy0",), (folder / "busy1",)], "waiting", "call")
"""
COMMAND = """
import sys, threading
from pathlib import Path
from midnight import cli
def wait(_):
    (Path(sys.argv[1]) / "busy").touch()
    threading.Event().wait()
cli.run_doctor = wait
cli.main(["doctor"])
"""
SAID = "midnight: stopped by {}; what is complete is kept: run again to go on\n"


def touch_and_wait(path: Path) -> None:
    path.touch()
    signal.pause()


def begun(code: str, folder: Path, children: int = 0) -> "subprocess.Popen[str]":
    """A script with a group of its own, busy, with that many processes of its own, which are at work too.

    An interpreter that is still starting has no handler yet: a signal then leaves its traceback in the log.
    """
    least = 2 if children else 1
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert comes_true(lambda: len(list(folder.glob("busy*"))) >= least, process, seconds=200)
    assert comes_true(lambda: len(psutil.Process(process.pid).children()) >= children, process)
    return process


@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
@pytest.mark.parametrize(("body", "children"), [(THREADS, 0), (FORKS, 2), (LOKY, 2)], ids=["threads", "forks", "loky"])
def test_a_script_ends_with_one_line_though_others_are_at_work(
    body: str, children: int, number: signal.Signals, status: int, name: str, tmp_path: Path
) -> None:
    process = begun(REDIRECTED.format(body=body.strip()), tmp_path, children)
    others = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=200)
    assert (process.returncode, errors) == (status, SAID.format(name))
    assert psutil.wait_procs(others, timeout=20)[1] == []
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".result", "result"))] == []


def test_processes_end_with_a_script_that_is_killed(tmp_path: Path) -> None:
    process = begun(REDIRECTED.format(body=LOKY.strip()), tmp_path, 2)
    others = psutil.Process(process.pid).children(recursive=True)
    assert comes_true(lambda: all(other.status() == psutil.STATUS_SLEEPING for other in others))
    process.kill()
    process.communicate()
    assert psutil.wait_procs(others, timeout=20)[1] == []


@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_command_ends_with_one_line(number: signal.Signals, status: int, name: str, tmp_path: Path) -> None:
    process = begun(COMMAND, tmp_path)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=200)
    assert (process.returncode, errors) == (status, SAID.format(name))
