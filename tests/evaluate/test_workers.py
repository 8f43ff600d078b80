"""Calls in forked processes: results, failures, and what is left behind."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from midnight.errors import ConfigError, MidnightError
from midnight.evaluate.workers import run_calls
from tests.waiting import comes_true


def square(value: int) -> tuple[int, int, int]:
    """The square, the process that computed it and its threads."""
    return value**2, os.getpid(), torch.get_num_threads()


def refuse(path: Path) -> None:
    raise ConfigError(f"{path}: wrong")


def touch(path: Path, seconds: float = 0) -> None:
    time.sleep(seconds)
    path.touch()


def meet(mine: Path, other: Path) -> bool:
    """Whether another call comes while this one waits for it."""
    mine.touch()
    return comes_true(other.exists, seconds=30)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def squares(*values: int) -> list[functools.partial[tuple[int, int, int]]]:
    return [functools.partial(square, value) for value in values]


def test_each_call_runs_once_where_it_should() -> None:
    told: list[int] = []
    found = sorted(run_calls(squares(5, 6), squares(1, 2, 3, 4), 2, lambda: told.append(1)))
    assert [value for value, _, _ in found] == [1, 4, 9, 16, 25, 36]
    here = [process == os.getpid() for _, process, _ in found]
    assert here == [False] * 4 + [True] * 2
    assert len({process for _, process, _ in found}) <= 3
    assert {threads for _, process, threads in found if process != os.getpid()} == {1}
    assert len(told) == 6


@pytest.mark.parametrize("n_here", [0, 1])
def test_calls_run_at_the_same_time(tmp_path: Path, n_here: int) -> None:
    """Two forked ones, or one here beside a forked one: each ends only once the other has begun."""
    first, second = tmp_path / "first", tmp_path / "second"
    calls = [functools.partial(meet, first, second), functools.partial(meet, second, first)]
    assert list(run_calls(calls[:n_here], calls[n_here:], 2 - n_here)) == [True, True]


def test_forked_processes_see_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "_is_compiled", lambda: True)
    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", lambda: 1, raising=False)  # what a fork inherits
    monkeypatch.delenv("PYTORCH_NVML_BASED_CUDA_CHECK", raising=False)
    assert list(run_calls([torch.cuda.is_available], [torch.cuda.is_available], 1)) == [True, False]


def test_nothing_is_forked_once_a_gpu_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert {process for _, process, _ in run_calls([], squares(1, 2), 2)} == {os.getpid()}


def test_no_process_is_forked_for_none_asked_for() -> None:
    assert {process for _, process, _ in run_calls(squares(1), squares(2, 3), 0)} == {os.getpid()}


def test_an_error_comes_through_and_no_further_call_starts(tmp_path: Path) -> None:
    late = [functools.partial(touch, tmp_path / str(number), 1) for number in range(20)]
    with pytest.raises(ConfigError, match=r"tasks\.yaml: wrong") as caught:
        list(run_calls([], [functools.partial(refuse, Path("tasks.yaml")), *late], 1))
    assert "in refuse" in str(caught.value.__cause__)  # the worker's traceback goes into the log
    assert len(list(tmp_path.iterdir())) <= 3  # one that runs, one that is next in line, one to spare


def test_an_error_elsewhere_is_seen_after_the_call_that_runs_here() -> None:
    ended, ran = threading.Event(), []
    here = [lambda: ran.append(ended.wait(60))] * 8
    with pytest.raises(ConfigError, match="there: wrong"):
        list(run_calls(here, [functools.partial(refuse, Path("there"))], 1, ended.set))
    assert ran == [True]


def test_an_error_here_stops_the_others(tmp_path: Path) -> None:
    late = [functools.partial(touch, tmp_path / str(number), 1) for number in range(20)]
    before = psutil.Process().children()  # of other tests
    with pytest.raises(ConfigError, match="here: wrong"):
        list(run_calls([functools.partial(refuse, Path("here"))], late, 1))
    assert len(list(tmp_path.iterdir())) <= 3
    assert set(psutil.Process().children()) <= set(before)


def test_a_killed_process_is_told() -> None:
    with pytest.raises(MidnightError, match="a worker process ended early, mostly for lack of memory"):
        list(run_calls([], [die, *squares(1)], 1))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's end")
def test_no_process_outlives_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import functools, pathlib, sys; from tests.evaluate.test_workers import *;"
        "folder = pathlib.Path(sys.argv[1]); calls = [functools.partial(touch, folder / 'begun'),"
        " functools.partial(touch, folder / 'late', 60)]; list(run_calls([], calls, 1))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[2])
    assert comes_true((tmp_path / "begun").exists, parent)
    (child,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    assert comes_true(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
