import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.evaluate.plus_minus import Average, average, difference_in_errors, mean_error, standard_error


@given(st.lists(st.floats(0, 1), min_size=2, max_size=50))
def test_standard_error_is_stdev_with_ddof_1_over_root_n(values: list[float]) -> None:
    assert standard_error(values) == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)))


def test_one_run_has_no_standard_error() -> None:
    assert standard_error([0.5]) is None
    assert standard_error([]) is None


def test_average_is_the_plain_mean_and_its_error_the_mean_of_the_errors() -> None:
    found = average([0.9, None, 0.6], [0.01, None, 0.03], 13)
    assert found == Average(0.75, 0.02, 2, 13)
    assert found.label == "mean of 2 of 13"
    assert not found.complete


def test_only_a_full_average_without_remark_is_complete() -> None:
    full = average([0.5] * 13, [0.1] * 13, 13)
    assert full is not None and full.complete and full.label == "mean of all"
    noted = average([0.5] * 13, [0.1] * 13, 13, "HEST of 2 of 9 tasks")
    assert noted is not None and not noted.complete
    assert "HEST of 2 of 9" in noted.label


def test_average_of_nothing_is_none_and_a_missing_error_stays_missing() -> None:
    assert average([None, None], [None, None], 13) is None
    assert mean_error([0.1, None]) is None
    assert mean_error([]) is None


@pytest.mark.parametrize(
    ("a", "error_a", "b", "error_b", "expected"),
    [(0.8, 0.03, 0.6, 0.04, 4.0), (0.5, 0.1, 0.6, 0.0, -1.0), (0.8, None, 0.6, 0.1, None), (0.8, 0.0, 0.6, 0.0, None)],
)
def test_difference_in_standard_errors(
    a: float, error_a: float | None, b: float, error_b: float | None, expected: float | None
) -> None:
    assert difference_in_errors(a, error_a, b, error_b) == (None if expected is None else pytest.approx(expected))
