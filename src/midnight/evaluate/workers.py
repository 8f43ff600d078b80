"""Calls in forked processes of one thread each: what this process has imported is not imported again."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from midnight.errors import MidnightError

Call = Callable[[], Any]
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl


def run_calls(
    here: Sequence[Call], forked: Sequence[Call], processes: int, tell: Callable[[], Any] = lambda: None
) -> Iterator[Any]:
    """Results of all calls, in no fixed order.

    Args:
        here: run one after the other in this process, while the others run.
        forked: run in `processes` forked ones, which see no GPU; pickled, and their results too. Forks, since fresh
            interpreters would import eva anew, 10 s each.
        processes: 0 runs all calls here, and so does a GPU in use already, which forks would not survive.
        tell: called after each call, also from another thread.

    Raises:
        MidnightError: a process was killed. What a call raises comes through as it is; those that run by then are
            waited for, no other is started.
    """
    if not processes or torch.cuda.is_initialized():
        yield from _run([*here, *forked], tell)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), _begin) as pool, _stop_at_failure(pool):
        futures = [pool.submit(call) for call in forked]
        for future in futures:
            future.add_done_callback(lambda _: tell())
        yield from _run(here, tell)
        yield from map(_result, as_completed(futures))


def _run(calls: Sequence[Call], tell: Callable[[], Any]) -> Iterator[Any]:
    for call in calls:
        yield call()
        tell()


@contextlib.contextmanager
def _stop_at_failure(pool: ProcessPoolExecutor) -> Iterator[None]:
    try:
        yield
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise


def _result(future: Future[Any]) -> Any:
    try:
        return future.result()
    except BrokenProcessPool as error:
        advice = "probably for lack of memory: give the job more memory (mem_mb) or fewer threads"
        raise MidnightError(f"a worker process was killed, {advice}; what was finished is kept") from error


def _begin() -> None:
    """A worker's start: one thread, no GPU, and no life after the parent's."""
    torch.set_num_threads(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # torch's optimizers ask each GPU that they see about graphs
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
