"""Pools that let go."""

import threading
from collections.abc import Iterator

import pytest

from midnight.pools import thread_pool


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a call waits for that hangs; open after the test, so that its thread ends."""
    event = threading.Event()
    yield event
    event.set()


def results(gate: threading.Event) -> Iterator[int]:
    """Two results, while a third call hangs."""
    with thread_pool(2) as pool:
        pool.submit(gate.wait, 60)
        yield from (pool.submit(lambda: 1).result(), pool.submit(lambda: 2).result())


def finish(gate: threading.Event, stop: BaseException) -> bool:
    """Take a result and end by an exception; whether that came back before the call that hangs."""
    back = threading.Event()

    def take() -> None:
        try:
            for _ in results(gate):
                raise stop
        except BaseException:
            back.set()

    threading.Thread(target=take, daemon=True).start()
    return back.wait(10)


def test_an_interrupt_where_results_are_taken_waits_for_no_call(gate: threading.Event) -> None:
    assert finish(gate, KeyboardInterrupt())


def test_an_interrupt_inside_waits_for_no_call(gate: threading.Event) -> None:
    with pytest.raises(KeyboardInterrupt), thread_pool(1) as pool:
        pool.submit(gate.wait, 60)
        raise KeyboardInterrupt


def test_the_end_of_the_block_and_an_error_wait_for_what_has_begun() -> None:
    done: list[int] = []
    with thread_pool(1) as pool:
        pool.submit(done.append, 1)
    with pytest.raises(ValueError, match="x"), thread_pool(1) as pool:
        begun = threading.Event()
        pool.submit(lambda: (begun.set(), done.append(2)))
        begun.wait(10)
        raise ValueError("x")
    assert done == [1, 2]
