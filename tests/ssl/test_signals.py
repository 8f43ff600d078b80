"""Real signals to real processes: what a scheduler sends, and what the machine does to a run."""

import signal
import time
from pathlib import Path

import psutil
import pytest

from midnight.ssl.signals import stop_on_signals
from tests.ssl.launched import (
    assert_equal,
    ended,
    error_line,
    job_of,
    launched,
    lines,
    ranks,
    small_index,
    train_launched,
    wait_for_step,
)

LONG = {"training": {"iterations": 40, "checkpoint_every": 1000}}
"""Without checkpoints on the way: what is saved was saved because of the signal."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_index(tmp_path_factory.mktemp("slides"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, index: Path) -> dict[int, Path]:
    """Runs without interruption, by number of processes."""
    jobs = {processes: job_of(tmp_path_factory.mktemp("whole"), index, processes, **LONG) for processes in (1, 2)}
    for job in jobs.values():
        train_launched(job)
    return jobs


@pytest.mark.parametrize(("number", "processes"), [(signal.SIGTERM, 1), (signal.SIGUSR1, 2)])
def test_a_signal_saves_and_asks_for_another_start(
    tmp_path: Path, index: Path, whole: dict[int, Path], number: signal.Signals, processes: int
) -> None:
    job = job_of(tmp_path, index, processes, **LONG)
    process = launched(job)
    wait_for_step(job, 3, process)
    process.send_signal(number)
    status, errors = ended(process)
    assert status == 75, errors
    assert "run again to go on from there" in error_line(errors)
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    step = int(saved.name.removeprefix("step_"))
    assert 3 <= step < 40
    assert step % 2 == 0
    status, errors = ended(launched(job))
    assert status == 0, errors
    assert f"resumed from step {step}" in errors
    assert_equal(job, whole[processes])


def test_a_signal_to_one_process_stops_all(tmp_path: Path, index: Path) -> None:
    """Slurm and torchrun signal the processes themselves, and not all at the same moment."""
    job = job_of(tmp_path, index, 2, **LONG)
    process = launched(job)
    wait_for_step(job, 3, process)
    ranks(process)[1].send_signal(signal.SIGUSR1)
    status, errors = ended(process)
    assert status == 75, errors
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1


def test_a_killed_process_ends_the_run_which_then_goes_on(tmp_path: Path, index: Path, whole: dict[int, Path]) -> None:
    job = job_of(tmp_path, index, 2, training=LONG["training"] | {"checkpoint_every": 4})
    process = launched(job)
    wait_for_step(job, 10, process)
    ranks(process)[1].kill()
    before = time.monotonic()
    status, errors = ended(process)
    assert time.monotonic() - before < 10
    assert status == 1
    assert error_line(errors).startswith("midnight: error: training process 1 of 2 was killed by SIGKILL")
    assert len(lines(job)) < 40
    status, errors = ended(launched(job))
    assert status == 0, errors
    assert "resumed from step" in errors
    assert_equal(job, whole[2])


def test_no_process_outlives_the_one_that_started_it(tmp_path: Path, index: Path) -> None:
    job = job_of(tmp_path, index, 2, **LONG)
    process = launched(job)
    wait_for_step(job, 2, process)
    children = ranks(process)
    process.kill()
    ended(process)
    assert len(children) == 2
    assert psutil.wait_procs(children, timeout=20)[1] == []


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with stop_on_signals() as request:
        assert not request
        signal.raise_signal(signal.SIGUSR1)
        assert request
        assert request.received == signal.SIGUSR1
    assert signal.getsignal(signal.SIGUSR1) == before
