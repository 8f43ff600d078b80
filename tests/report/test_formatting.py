import math

import pytest

from midnight.report import formatting


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (math.nan, "–"), (math.inf, "–"), (0.5, ".500")])
def test_unknown_scores_are_dashes(value: float | None, text: str) -> None:
    assert formatting.score(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.123, "+.123"), (-0.123, "−.123"), (None, "–"), (math.nan, "–")])
def test_signed(value: float | None, text: str) -> None:
    assert formatting.signed(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_020_000_000, "1.0 GB"), (12_950_000_000_000, "12.95 TB")],
)
def test_size(count: int, text: str) -> None:
    assert formatting.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3600 * 5 + 180, "5 h 03 min"),
        (None, "–"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert formatting.duration(seconds) == text


def test_credentials_are_cut_out_of_urls() -> None:
    text = formatting.without_credentials("uri: http://me:pw@host:1/x and https://plain/y@z")
    assert text == "uri: http://…@host:1/x and https://plain/y@z"
