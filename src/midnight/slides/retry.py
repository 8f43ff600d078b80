"""When to ask a service again, and after which pause: for slides and for data sets alike."""

import datetime
import email.utils
import random
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

T = TypeVar("T")
TRANSIENT_CODES = frozenset((408, 425, 429, *range(500, 600)))
LONGEST_PAUSE = 120.0
LONGEST_RETRY_AFTER = 600.0
MOST_ATTEMPTS = 100
"""However little each attempt brings, a file is given up after so many more than may fail in a row."""


class TransientError(Exception):
    """An attempt failed in a way that another attempt may mend.

    Attributes:
        retry_after: seconds that the service asks to wait; None if it doesn't say.
        served: whether the service had agreed to send the body, so that the file is at fault rather than the service.
    """

    def __init__(self, cause: str, retry_after: float | None = None, served: bool = False):
        super().__init__(cause)
        self.retry_after = retry_after
        self.served = served


class RefusedError(Exception):
    """The service answered, and asking again at once would give the same answer: what it said, on one line.

    Attributes:
        gone: whether the service says that it does not have the file (any more), so that a later run need not ask.
    """

    def __init__(self, said: str, gone: bool = False):
        super().__init__(said)
        self.gone = gone


class ExhaustedError(Exception):
    """All attempts failed.

    Attributes:
        error: the last one's.
        attempts: how many there were.
    """

    def __init__(self, error: TransientError, attempts: int):
        super().__init__(str(error))
        self.error, self.attempts = error, attempts


class StoppedError(Exception):
    """Another slide's failure ended the whole job."""


def retried(
    attempt: Callable[[], T],
    allowed: int,
    first: float,
    tell: Callable[[int, TransientError], None],
    progress: Callable[[], int] = lambda: 0,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """What `attempt` returns, which is called again after a TransientError.

    Args:
        attempt: any other error goes through.
        allowed: failures in a row without progress.
        first: pause after the first of these, seconds; see `pause_seconds`.
        tell: of each failure, with the number of attempts so far.
        progress: what a failed attempt may have increased, such as the bytes that have come.
        sleep: waits so many seconds.

    Raises:
        ExhaustedError: `allowed` failures brought nothing, or `allowed` + MOST_ATTEMPTS however little.
    """
    best, idle = progress(), 0

    def count(state: tenacity.RetryCallState) -> None:
        nonlocal best, idle
        reached = progress()
        idle = 1 if reached > best else idle + 1
        best = max(best, reached)
        tell(state.attempt_number, _failure(state))

    tries = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        after=count,
        stop=lambda state: idle >= allowed or state.attempt_number >= allowed + MOST_ATTEMPTS,
        wait=lambda state: pause_seconds(idle, first, _failure(state).retry_after),
        sleep=sleep,
    )
    try:
        return tries(attempt)
    except tenacity.RetryError as error:
        last = error.last_attempt
        raise ExhaustedError(_error_of(last), last.attempt_number) from _error_of(last)


def _failure(state: tenacity.RetryCallState) -> TransientError:
    assert state.outcome is not None  # noqa: S101 (asked for after an attempt only)
    return _error_of(state.outcome)


def _error_of(outcome: tenacity.Future) -> TransientError:
    error = outcome.exception()
    assert isinstance(error, TransientError)  # noqa: S101 (others are not tried again)
    return error


def pause_seconds(failures: int, first: float, retry_after: float | None = None) -> float:
    """Seconds to wait after `failures` failures in a row: `first`, doubled each time, times a jitter in [0.5, 1].

    The service's own wish (`Retry-After`) is a lower bound; both are capped, so that nothing hangs for ever.
    """
    grown = min(first * 2.0 ** min(failures - 1, 30), LONGEST_PAUSE) * random.uniform(0.5, 1.0)
    return max(grown, min(retry_after or 0.0, LONGEST_RETRY_AFTER))


def retry_after_seconds(value: str | None) -> float | None:
    """Seconds from a `Retry-After` header, which is a number or an HTTP date (RFC 9110, 10.2.3)."""
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max((moment - datetime.datetime.now(datetime.UTC)).total_seconds(), 0.0)
