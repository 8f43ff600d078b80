"""Waiting for what other processes do."""

import time
from collections.abc import Callable
from subprocess import Popen
from typing import Any


def comes_true(condition: Callable[[], bool], process: "Popen[Any] | None" = None, seconds: float = 60) -> bool:
    """Whether the condition comes true in time, and while `process` runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            return False
        time.sleep(0.01)
    return True
