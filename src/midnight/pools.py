"""Pools of threads and processes that let go when a person interrupts."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

Pool = TypeVar("Pool", bound=Executor)


@contextlib.contextmanager
def ends_with_block(pool: Pool) -> Iterator[Pool]:
    """The pool, whose calls end with the block: all of them, or after an error those that have begun.

    After Ctrl-C or SIGTERM no call is waited for, since one may hang in a dead mount or service: the process ends.
    In a generator the interrupt may meet the one that takes its values: then it is closed, and sees only that.
    """
    try:
        yield pool
    except (KeyboardInterrupt, GeneratorExit):
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def thread_pool(workers: int, name: str = "") -> contextlib.AbstractContextManager[ThreadPoolExecutor]:
    """Threads, see `ends_with_block`."""
    return ends_with_block(ThreadPoolExecutor(workers, name))
