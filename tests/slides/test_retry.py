import datetime
import email.utils

from hypothesis import given
from hypothesis import strategies as st

from midnight.slides.retry import LONGEST_PAUSE, LONGEST_RETRY_AFTER, pause_seconds, retry_after_seconds


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
