"""Calls in forked processes of one thread each: what this process has imported is not imported again."""

import contextlib
import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from midnight.children import obey_parent_only, signals_held
from midnight.errors import MidnightError
from midnight.pools import ends_with_block

Call = Callable[[], Any]


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
        MidnightError: a process ended before its call did. What a call raises comes through as it is, after the call
            that runs here; calls that have begun or are next in line by then are waited for.
    """
    if not processes or torch.cuda.is_initialized():
        yield from _run([*here, *forked], tell)
        return
    try:
        with _pool(processes) as pool:
            with signals_held():  # the first call starts all processes; an interrupt amid a fork would be lost
                waiting = {pool.submit(call) for call in forked}
            for future in waiting:
                future.add_done_callback(lambda ended: ended.cancelled() or tell())
            for result in _run(here, tell):
                yield result
                done, waiting = wait(waiting, timeout=0)
                yield from (future.result() for future in done)
            yield from (future.result() for future in as_completed(waiting))
    except BrokenProcessPool as error:
        advice = "mostly for lack of memory: see the log, and give the job more memory (mem_mb) or fewer threads"
        raise MidnightError(f"a worker process ended early, {advice}; what was finished is kept") from error


def _run(calls: Sequence[Call], tell: Callable[[], Any]) -> Iterator[Any]:
    for call in calls:
        yield call()
        tell()


def _pool(processes: int) -> contextlib.AbstractContextManager[ProcessPoolExecutor]:
    """Forked processes; after an error those calls are waited for that have begun, after Ctrl-C none."""
    begin = functools.partial(_begin, os.getpid())
    return ends_with_block(ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), begin))


def _begin(parent: int) -> None:
    """A worker's start: one thread, no GPU; it ends when the parent does."""
    obey_parent_only(parent, terminable=True)  # a broken pool sends SIGTERM
    torch.set_num_threads(1)
    # torch's optimizers ask the GPU about graphs where they see one; without NVML the parent's count would be theirs.
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run torch's CPU operations with this many threads: heads are so small that more of them only wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
