"""Pools of threads that let go when a person interrupts."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor


@contextlib.contextmanager
def thread_pool(workers: int, name: str = "") -> Iterator[ThreadPoolExecutor]:
    """A pool whose calls end with the block: all of them, or after an error those that have begun.

    After Ctrl-C or SIGTERM no call is waited for, since one may hang in a dead mount or service: the process ends.
    """
    pool = ThreadPoolExecutor(workers, name)
    try:
        yield pool
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()
