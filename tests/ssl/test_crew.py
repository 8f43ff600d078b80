"""Processes that make batches, one of which hangs: told of, replaced, and the stream is what it was."""

import itertools
import logging
import multiprocessing.context
import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from midnight.errors import MidnightError
from midnight.reading import reading
from midnight.ssl import crew
from midnight.ssl.crew import Crew, StalledError, StallLimits, comes
from midnight.ssl.launch.signals import StoppedError
from midnight.ssl.loader import ahead, told_of_stalls, worker_batches
from tests.waiting import comes_true

SHORT = StallLimits(tell=0.05, replace=0.3, kill=5, stop=0.05)
Batch = dict[str, torch.Tensor]


def empty(size: int) -> torch.Tensor:
    return torch.empty(size, dtype=torch.uint8)


class Numbers:
    """Stands for a stream of tiles: batch k is full of k. `hang` is called before each."""

    def __init__(self, hang: Callable[[int], None] = lambda step: None, start: int = 0) -> None:
        self.start_step, self.hang = start, hang

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"global_crops": (2, 2, 4, 4, 3), "local_crops": (2, 0, 2, 2, 3)}

    def batches(
        self, first: int, every: int, memory: Callable[[], Batch] | None = None
    ) -> Generator[Batch, None, None]:
        for step in itertools.count(first, every):
            reading(f"/slides/{step}.svs")
            self.hang(step)
            pixels = memory() if memory else {name: torch.empty(shape) for name, shape in self.shapes().items()}
            for part in pixels.values():
                part.fill_(step)
            yield pixels | {"index": torch.tensor([2 * step, 2 * step + 1])}


def hanging_at(hung: int, once: Path | None = None) -> Callable[[int], None]:
    """Hangs at a batch: each process that comes to it or, with a file to note it in, the first."""

    def hang(step: int) -> None:
        if step == hung and not (once and once.exists()):
            if once:
                once.touch()
            time.sleep(1000)

    return hang


def taken(stream: Any, workers: int, count: int, limits: StallLimits = SHORT) -> list[int]:
    """What batches are full of, from that many processes."""
    batches = worker_batches(stream, workers, limits)
    found = []
    for batch in itertools.islice(batches, count):
        assert batch["global_crops"].shape == (2, 2, 3, 4, 4)
        assert batch["local_crops"].shape == (2, 0, 3, 2, 2)
        (number,) = batch["global_crops"].unique().tolist()
        assert batch["index"].tolist() == [2 * number, 2 * number + 1]
        found.append(int(number))
    batches.close()
    return found


@pytest.fixture
def crews() -> Iterator[Callable[..., Crew]]:
    """Makes crews that are ended after the test."""
    made: list[Crew] = []

    def make(stream: Any, limits: StallLimits = SHORT, stop: Callable[[], bool] = lambda: False) -> Crew:
        made.append(Crew(stream, 2, limits, stop, empty))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_come_in_their_order(workers: int) -> None:
    patient = StallLimits()
    assert taken(Numbers(), workers, 20, patient) == list(range(20))
    assert taken(Numbers(start=7), workers, 5, patient) == [7, 8, 9, 10, 11]


@pytest.mark.parametrize("hung", [0, 3, 8])
def test_a_process_that_hangs_is_told_of_and_replaced_and_the_stream_is_the_same(
    hung: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        # on a busy machine a healthy process may be as slow
        found = taken(Numbers(hanging_at(hung, tmp_path / "hung")), 2, 12, replace(SHORT, replacements=100))
    assert found == list(range(12))
    assert f"worker {hung % 2} (process " in caplog.text
    assert f"is reading /slides/{hung}.svs" in caplog.text
    assert "no batch for 0 s" in caplog.text
    assert "it was killed, and another process draws what it owed" in caplog.text


def test_a_batch_at_which_all_hang_ends_the_run_with_the_slide(crews: Callable[..., Crew]) -> None:
    made = crews(Numbers(hanging_at(2)))
    assert [int(made.take(step)["index"][0]) for step in range(2)] == [0, 2]
    with pytest.raises(StalledError, match=r"worker 0 .* is reading /slides/2\.svs.*, as those before it") as caught:
        made.take(2)
    assert "\n" not in str(caught.value)


def test_a_process_that_cannot_be_killed_ends_the_run_with_the_slide_and_its_mount(
    crews: Callable[..., Crew], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the kernel, which waits for a server: here the kill is left out."""
    made = crews(Numbers(hanging_at(1)), StallLimits(tell=0.05, replace=0.2, kill=0.05))
    made.take(0)
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing.context.ForkProcess, "kill", lambda process: None)
        with pytest.raises(StalledError, match=r"/slides/1\.svs \(mount /.*\), and can't be killed"):
            made.take(1)
    # Neither Python's exit nor anything else waits for it.
    assert made._workers[1].process not in multiprocessing.active_children()


def test_a_run_told_to_stop_does_not_wait_for_a_batch_that_hangs(crews: Callable[..., Crew]) -> None:
    made = crews(Numbers(hanging_at(0)), StallLimits(stop=0.05), lambda: True)
    with pytest.raises(StoppedError):
        made.take(0)


def test_a_process_that_died_and_one_that_fails_are_one_line(crews: Callable[..., Crew]) -> None:
    def fail(step: int) -> None:
        if step == 1:
            raise ValueError("two\nlines")
        if step == 2:
            os._exit(3)

    made = crews(Numbers(fail), StallLimits())
    made.take(0)
    with pytest.raises(MidnightError, match=r"^a data-loading process failed: ValueError: two lines$"):
        made.take(1)
    with pytest.raises(MidnightError, match=r"died: worker 0, status 3; mostly memory: lower training\.workers"):
        made.take(2)


class Watched:
    """A process that gives its batch after some looks at it, one second apart, with or without signs of life."""

    def __init__(self, looks: int, lives: bool, clock: list[float]) -> None:
        self.looks, self.lives, self.clock = looks, lives, clock
        self.slot = self

    def wait(self, seconds: float) -> bool:
        self.clock[0] += 1
        self.looks -= 1
        return self.looks < 0

    def read(self) -> tuple[int, str]:
        return (self.looks if self.lives else 0), ""

    def doing(self) -> str:
        return "reading"


@pytest.mark.parametrize(("looks", "lives", "expected"), [(299, False, True), (301, False, False), (900, True, True)])
def test_only_one_that_shows_no_sign_of_life_is_given_up(
    looks: int, lives: bool, expected: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]
    monkeypatch.setattr(crew.time, "monotonic", lambda: clock[0])
    worker: Any = Watched(looks, lives, clock)
    assert comes(worker, StallLimits(), lambda: False) == expected
    assert caplog.text.count("no batch for") == (15 if lives else min(looks, 300) // 60)


def test_a_process_that_draws_its_own_batches_says_what_it_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    def until_told(step: int) -> None:
        assert step != 1 or comes_true(lambda: "this process is reading /slides/1.svs" in caplog.text)

    batches = told_of_stalls(Numbers(until_told).batches(0, 1), 0.05)
    assert [int(batch["index"][0]) for batch in itertools.islice(batches, 3)] == [0, 2, 4]
    batches.close()
    assert "/slides/2.svs" not in caplog.text


def test_batches_of_a_thread_come_in_order_with_its_error_and_end_with_it() -> None:
    closed: list[int] = []

    def make(ended: Callable[[], bool]) -> Generator[Any, None, None]:
        try:
            yield from range(5)
            raise MidnightError("no more")
        finally:
            closed.append(1)

    found = []
    with pytest.raises(MidnightError, match="no more"):
        for item in ahead(make, 2):
            found.append(item)
    assert (found, closed) == ([0, 1, 2, 3, 4], [1])
    batches = ahead(lambda ended: make(ended), 1)
    assert next(batches) == 0
    batches.close()
    assert closed == [1, 1]


def test_processes_end_with_the_iterator() -> None:
    before = set(psutil.Process().children())
    batches = worker_batches(Numbers(), 2, SHORT)  # type: ignore[arg-type]
    next(batches)
    assert len(set(psutil.Process().children()) - before) == 2
    batches.close()
    assert set(psutil.Process().children()) <= before
