import datetime
import email.utils
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.slides.retry import (
    LONGEST_PAUSE,
    LONGEST_RETRY_AFTER,
    MOST_ATTEMPTS,
    ExhaustedError,
    RefusedError,
    TransientError,
    pause_seconds,
    retried,
    retry_after_seconds,
)


@given(st.integers(1, 10_000), st.floats(0, 60))
def test_pause_doubles_with_jitter_up_to_a_cap(failures: int, first: float) -> None:
    full = min(first * 2.0 ** min(failures - 1, 30), LONGEST_PAUSE)
    assert full / 2 <= pause_seconds(failures, first) <= full <= LONGEST_PAUSE


def test_the_services_wish_is_honoured_within_reason() -> None:
    assert pause_seconds(1, 0.01, 7) == 7
    assert pause_seconds(1, 0.01, 1e9) == LONGEST_RETRY_AFTER


def test_retry_after_as_number_or_date() -> None:
    assert retry_after_seconds("12") == 12
    assert retry_after_seconds(None) is None
    assert retry_after_seconds("soon") is None
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
    seconds = retry_after_seconds(email.utils.format_datetime(moment, usegmt=True))
    assert seconds is not None and 90 < seconds <= 100
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0


class Service:
    """Brings so many bytes on each attempt, fails on all but the last, and notes what it was told."""

    def __init__(self, brings: list[int], end: Exception | None = None) -> None:
        self.size, self.attempts, self.brings, self.end = 0, 0, brings, end
        self.told: list[tuple[int, str]] = []
        self.pauses: list[float] = []

    def __call__(self) -> str:
        self.attempts += 1
        if self.attempts <= len(self.brings):
            self.size += self.brings[self.attempts - 1]
            raise TransientError(f"fault {self.attempts}", retry_after=7 if self.attempts == 1 else None)
        if self.end:
            raise self.end
        return "whole"

    def run(self, allowed: int) -> str:
        def tell(attempts: int, error: TransientError) -> None:
            self.told.append((attempts, str(error)))

        return retried(self, allowed, 0.5, tell, lambda: self.size, self.pauses.append)


def test_attempts_go_on_until_one_succeeds() -> None:
    service = Service([0, 0])
    assert service.run(3) == "whole"
    assert service.told == [(1, "fault 1"), (2, "fault 2")]
    assert service.pauses[0] == 7, "as long as the service asked for"
    assert 0.5 <= service.pauses[1] <= 1


def test_failures_in_a_row_that_bring_nothing_are_counted() -> None:
    service = Service([5, 0, 5, 0, 0, 5])
    with pytest.raises(ExhaustedError, match="fault 5") as caught:
        service.run(3)
    assert (caught.value.attempts, caught.value.error.retry_after) == (5, None)
    assert len(service.pauses) == 4, "none after the last"
    assert isinstance(caught.value.__cause__, TransientError)


def test_however_little_comes_it_ends() -> None:
    service = Service([1] * 1000)
    with pytest.raises(ExhaustedError):
        service.run(2)
    assert service.attempts == 2 + MOST_ATTEMPTS


@pytest.mark.parametrize("end", [RefusedError("no"), KeyboardInterrupt()], ids=["refused", "Ctrl-C"])
def test_what_no_attempt_can_mend_goes_through(end: Any) -> None:
    service = Service([0], end)
    with pytest.raises(type(end)):
        service.run(9)
    assert service.attempts == 2


def test_a_stop_while_waiting_goes_through() -> None:
    def stop(_: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        retried(Service([0, 0]), 9, 0.5, lambda *_: None, sleep=stop)
