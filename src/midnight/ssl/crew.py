"""The processes that make a run's batches: each fills memory that it shares with this one, when it is told to.

Process w of W makes every W-th batch. A batch is a function of its number alone, so one that hangs (a dead mount, a
decoder that never ends) is killed, and another takes its place at the batch that it owed: the stream stays the same.
Not torch's DataLoader: there all processes share a queue, which does not survive the death of one, and the memory of a
batch can only be had from a process that still answers.
"""

import contextlib
import logging
import mmap
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from midnight.children import obey_parent_only, signals_held
from midnight.errors import MidnightError
from midnight.logs import warn
from midnight.reading import Slot, tell_in
from midnight.ssl.launch.signals import StoppedError
from midnight.ssl.mounts import mount_of, state_of
from midnight.tiles.stream import TileStream, channels_first

log = logging.getLogger(__name__)
PREFETCH = 4
"""Batches that each process holds ready or is at: enough for the spread between slow slides and fast ones."""
POLL = 0.1
Shapes = Mapping[str, tuple[int, ...]]


class StalledError(MidnightError):
    """No batch came for so long that the run ends."""


@dataclass(frozen=True)
class StallLimits:
    """How long is waited, in seconds, and how often it is tried again.

    Attributes:
        tell: for a batch, before a line says so; and between two such lines.
        replace: for a sign of life of the process that owes it, before that is replaced.
        kill: for a killed process to end.
        stop: for a batch, once the run was told to stop.
        replacements: of processes for one batch.
    """

    tell: float = 60.0
    replace: float = 300.0
    kill: float = 10.0
    stop: float = 5.0
    replacements: int = 2


class Worker:
    """One process, seen from the one that trains."""

    def __init__(self, stream: TileStream, number: int, first: int, every: int) -> None:
        """Start it, to make the batches first, first + every, …"""
        self.number, self.slot = number, Slot()
        self._shapes = stream.shapes()
        size = sum(int(np.prod(shape)) for shape in self._shapes.values())
        self._memory = [mmap.mmap(-1, max(1, size)) for _ in range(PREFETCH)]
        context = multiprocessing.get_context("fork")
        orders, self._orders = context.Pipe(duplex=False)
        self._answers, answers = context.Pipe(duplex=False)
        work = (stream, first, every, self._memory, orders, answers, self.slot, os.getpid())
        self.process = context.Process(target=_work, args=work, name=f"batches-{number}", daemon=True)
        with signals_held():
            self.process.start()
        # At its exit Python would wait for it, for ever if it can't be killed.
        multiprocessing.process._children.discard(self.process)  # type: ignore[attr-defined]
        orders.close()
        answers.close()
        for place in range(PREFETCH):
            self._orders.send(place)

    def wait(self, seconds: float) -> bool:
        """Whether it has a batch or has ended, after waiting for it."""
        return bool(wait([self._answers, self.process.sentinel], seconds))

    def take(self, empty: Callable[[int], Tensor]) -> dict[str, Tensor]:
        """The batch that is ready, in memory of its own (of `empty`); its former place is to be filled anew.

        Raises:
            MidnightError: that of the process; or it has ended.
        """
        try:
            place, rest, problem = self._answers.recv()
        except (EOFError, OSError) as error:
            self.process.join(1)
            raise MidnightError(
                f"a data-loading process died: worker {self.number}, status {self.process.exitcode}; mostly memory: "
                f"lower training.workers or tiles.max_open_slides"
            ) from error
        if problem:
            raise MidnightError(problem)
        copy = empty(len(self._memory[place]))
        copy.copy_(torch.frombuffer(self._memory[place], dtype=torch.uint8))
        with contextlib.suppress(OSError):  # it has died: noticed when its next batch is asked for
            self._orders.send(place)
        return channels_first(_cut(copy, self._shapes)) | {name: torch.from_numpy(rows) for name, rows in rest.items()}

    def kill(self, seconds: float) -> bool:
        """Kill it; whether it has ended within that time. One that waits for the kernel can't."""
        self.process.kill()
        self.process.join(seconds)
        self._orders.close()
        self._answers.close()
        return self.process.exitcode is not None

    def doing(self) -> str:
        """Where it hangs, in words."""
        path = self.slot.read()[1]
        reads = f"reading {path}{mount_of(path)}" if path else "not yet reading any slide"
        return f"worker {self.number} (process {self.process.pid}, {state_of(self.process.pid)}) is {reads}"


class Crew:
    """All processes of a stream, watched."""

    def __init__(
        self,
        stream: TileStream,
        workers: int,
        limits: StallLimits,
        stop: Callable[[], bool],
        empty: Callable[[int], Tensor],
    ) -> None:
        """Start them.

        Args:
            stream: whose batches, from its `start_step` on.
            workers: processes.
            limits: with each of them.
            stop: whether the run was told to stop.
            empty: memory for so many bytes: uint8 [n].
        """
        self._stream, self._limits, self._stop, self._empty = stream, limits, stop, empty
        self._workers = [Worker(stream, number, stream.start_step + number, workers) for number in range(workers)]

    def take(self, step: int) -> dict[str, Tensor]:
        """Batch `step`; batches are to be taken in their order.

        Raises:
            StoppedError: the run was told to stop, and the batch did not come soon.
            StalledError: the batch does not come, or the process that owes it can't be killed.
            MidnightError: the process that owes it died, or can't go on.
        """
        number = (step - self._stream.start_step) % len(self._workers)
        for left in reversed(range(self._limits.replacements + 1)):
            if comes(self._workers[number], self._limits, self._stop):
                return self._workers[number].take(self._empty)
            if left:
                self._replace(number, step)
        raise StalledError(
            f"{self._workers[number].doing()}, as those before it that were killed: the file makes it hang, or its "
            f"disk or server does not answer; mend or exclude the slide"
        )

    def _replace(self, number: int, step: int) -> None:
        worker = self._workers[number]
        doing = worker.doing()
        if not worker.kill(self._limits.kill):
            raise StalledError(
                f"{doing}, and can't be killed: the system waits for a disk or server that does not answer; mend that"
            )
        warn(log, f"{doing}, for {self._limits.replace:.0f} s; it was killed, and another process draws what it owed")
        self._workers[number] = Worker(self._stream, number, step, len(self._workers))

    def close(self) -> None:
        """End all processes; they have nothing to lose."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.kill(self._limits.kill)


def comes(worker: Worker, limits: StallLimits, stop: Callable[[], bool]) -> bool:
    """Wait for a process's batch, or its end; False when nothing has moved for so long that there is no hope.

    Raises:
        StoppedError: the run was told to stop, and the batch did not come soon.
    """
    start = alive = told = time.monotonic()
    stopped, beats = None, worker.slot.read()[0]
    while not worker.wait(min(POLL, limits.tell)):
        now = time.monotonic()
        if beats != (beats := worker.slot.read()[0]):
            alive = now
        if stop():
            stopped = stopped or now
            if now - stopped >= limits.stop:
                raise StoppedError("the next batch is not waited for")
        if now - told >= limits.tell:
            told = now
            warn(log, f"no batch for {now - start:.0f} s: {worker.doing()}, for {now - alive:.0f} s")
        if now - alive >= limits.replace:
            return False
    return True


def _cut(memory: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """Arrays of these shapes, one after the other in memory uint8 [n]."""
    parts, start = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        parts[name] = memory[start : start + size].view(shape)
        start += size
    return parts


def _work(
    stream: TileStream,
    first: int,
    every: int,
    memory: list[mmap.mmap],
    orders: Connection,
    answers: Connection,
    slot: Slot,
    parent: int,
) -> None:
    """What a process does: fill the places that it is told to, until it is killed or its parent ends."""
    obey_parent_only(parent)
    tell_in(slot)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    shapes, places = stream.shapes(), [torch.frombuffer(part, dtype=torch.uint8) for part in memory]
    wanted = [0]
    batches = stream.batches(first, every, lambda: _cut(places[wanted[0]], shapes))
    while (place := _order(orders, parent)) is not None:
        wanted[0] = place
        rest: dict[str, Any] = {}
        problem = None
        try:
            batch = next(batches)
            rest = {name: rows.numpy() for name, rows in batch.items() if name not in shapes}
        except MidnightError as error:
            problem = str(error)
        except Exception as error:  # whatever it is, the run has to be told
            log.exception("data-loading process")
            problem = f"a data-loading process failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        answers.send((place, rest, problem))
        if problem:
            return


def _order(orders: Connection, parent: int) -> int | None:
    """The place to fill next; None when the parent has gone."""
    while not orders.poll(5):
        if os.getppid() != parent:
            return None
    try:
        return int(orders.recv())
    except EOFError:
        return None
