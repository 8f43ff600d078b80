"""When to ask a service again, and after which pause."""

import datetime
import email.utils
import random

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


class StoppedError(Exception):
    """Another slide's failure ended the whole job."""


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
