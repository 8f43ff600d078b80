"""Real signals to real processes: what a scheduler sends, and what the machine does to a run."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from midnight.ssl.launch.signals import SIGNALS, stop_on_signals
from tests.ssl.launched import (
    answers,
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
from tests.waiting import comes_true

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


@pytest.mark.parametrize(
    ("number", "processes", "workers", "whole_group"),
    [(signal.SIGINT, 1, 2, True), (signal.SIGTERM, 2, 1, True), (signal.SIGUSR1, 2, 0, False)],
)
def test_a_signal_saves_and_asks_for_another_start(
    tmp_path: Path,
    index: Path,
    whole: dict[int, Path],
    number: signal.Signals,
    processes: int,
    workers: int,
    whole_group: bool,
) -> None:
    """Ctrl-C and schedulers signal the whole process group: also the processes that load data, which must not die."""
    job = job_of(tmp_path, index, processes, training=LONG["training"] | {"workers": workers})
    process = launched(job)
    wait_for_step(job, 3, process)
    before = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number) if whole_group else process.send_signal(number)
    status, errors = ended(process)
    assert status == 75, errors
    assert "Traceback" not in errors
    assert f"midnight: {number.name}: saves what is trained so far, then ends; please wait\n" in errors
    assert f"stopped by {number.name}, saved at step " in error_line(errors)
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    step = int(saved.name.removeprefix("step_"))
    assert 2 <= step < 40
    assert step % 2 == 0
    assert psutil.wait_procs(before, timeout=20)[1] == []
    if processes == 1:  # the others resume as after a kill, see below
        status, errors = ended(launched(job))
        assert status == 0, errors
        assert f"resumed from step {step}" in errors
        assert_equal(job, whole[processes])


@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_before_the_first_step_is_answered_alike(tmp_path: Path, index: Path, processes: int) -> None:
    job = job_of(tmp_path, index, processes, **LONG)
    process = launched(job)
    assert comes_true(lambda: answers(process), process)
    os.killpg(process.pid, signal.SIGINT)
    status, errors = ended(process)
    assert status == 75, errors
    assert "Traceback" not in errors
    assert "stopped by SIGINT" in error_line(errors)
    assert not list((tmp_path / "run").glob("checkpoints/*"))


SLOW_SAVE = """
import sys, time
from pathlib import Path
from midnight.errors import MidnightError
from midnight.ssl.checkpoint import checkpoints as checkpoint
from midnight.ssl.launch.signals import SIGNALS, stop_on_signals
from tests.ssl.tiny import tiny_recipe, train_tiny
folder, write = Path(sys.argv[1]), checkpoint.write_pieces
def slowly(file, pieces):
    (folder / "saving").touch()
    while not (folder / "go on").exists():
        time.sleep(0.01)
    write(file, pieces)
checkpoint.write_pieces = slowly
try:
    train_tiny(folder / "run", tiny_recipe(training={"iterations": 10**6, "checkpoint_every": 10**6}))
except MidnightError as error:
    sys.exit(error.status)
"""


@pytest.mark.parametrize("third", [False, True])
def test_a_second_interrupt_lets_it_save_and_a_third_does_not(tmp_path: Path, third: bool) -> None:
    process = launched(None, [sys.executable, "-c", SLOW_SAVE, str(tmp_path)])
    assert comes_true(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), process)
    process.send_signal(signal.SIGINT)
    assert comes_true((tmp_path / "saving").exists, process)
    assert process.stderr
    assert comes_true(lambda: "saves what is trained so far" in process.stderr.readline(), process)
    process.send_signal(signal.SIGINT)
    assert comes_true(lambda: "still saving; one more Ctrl-C ends at once" in process.stderr.readline(), process)
    if third:
        process.send_signal(signal.SIGINT)
    else:
        (tmp_path / "go on").touch()
    status, errors = ended(process)
    assert "Traceback" not in errors
    assert status == (-signal.SIGINT if third else 75), errors
    assert len(list((tmp_path / "run" / "checkpoints").glob("step_*"))) == (0 if third else 1)


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


def test_several_processes_end_together_when_the_slides_hang(tmp_path: Path) -> None:
    """A named pipe in the slide's place, whose opening waits for a writer as that of a file on a dead mount."""
    index = small_index(tmp_path)
    (tmp_path / "slide.svs").unlink()
    os.mkfifo(tmp_path / "slide.svs")
    training = LONG["training"] | {"workers": 1, "stall_seconds": 0.5, "probe_every": 0}
    status, errors = ended(launched(job_of(tmp_path, index, 2, training=training)))
    assert status == 1, errors
    assert f"is reading {tmp_path / 'slide.svs'} (mount /" in error_line(errors)
    assert "before anything was to be saved: then run again to go on" in error_line(errors)


def test_a_run_that_is_killed_leaves_no_process_that_loads_data(tmp_path: Path, index: Path) -> None:
    job = job_of(tmp_path, index, 1, training=LONG["training"] | {"workers": 2})
    process = launched(job)
    wait_for_step(job, 1, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    ended(process)
    assert len(children) == 2
    assert psutil.wait_procs(children, timeout=20)[1] == []


def test_all_blocks_share_one_note_and_all_signals_are_noted() -> None:
    with stop_on_signals() as outer:
        for number in SIGNALS:
            with stop_on_signals() as inner:
                signal.raise_signal(number)
            assert inner is outer
        assert outer.received == SIGNALS[0]
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1} <= set(SIGNALS)
    with stop_on_signals() as another:
        assert not another


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with stop_on_signals() as request:
        assert not request
        signal.raise_signal(signal.SIGUSR1)
        assert request
        assert request.received == signal.SIGUSR1
    assert signal.getsignal(signal.SIGUSR1) == before
