"""Every ± there is: of a task's runs or folds, of averages over columns, of differences."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


def standard_error(values: Sequence[float]) -> float | None:
    """Standard deviation (ddof 1) / √runs, the ± of Table A1; None for fewer than two values."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def deviation(values: Sequence[float], folds: bool) -> float:
    """Standard deviation of a task's values: of runs with ddof 1, of HEST's folds with ddof 0, as each source has it.

    0 for a single value.
    """
    if folds:
        return statistics.pstdev(values)
    return statistics.stdev(values) if len(values) > 1 else 0.0


def error_of_mean(errors: Sequence[float | None]) -> float | None:
    """Standard error of the mean of independent values with these: √(Σ SE²) / n; None unless every entry has one."""
    squares = [error**2 for error in errors if error is not None]
    return sum(squares) ** 0.5 / len(errors) if len(squares) == len(errors) else None


@dataclass(frozen=True)
class Average:
    """A plain mean over columns, with the number of columns that it covers of those it should."""

    value: float
    error: float | None
    n: int
    of: int
    note: str = ""

    @property
    def complete(self) -> bool:
        """Whether it may stand beside a published average."""
        return self.n == self.of and not self.note

    @property
    def label(self) -> str:
        """How the average must be called, e.g. "mean of 4 of 13"."""
        text = "mean of all" if self.n == self.of else f"mean of {self.n} of {self.of}"
        return f"{text}, {self.note}" if self.note else text


def mean_error(errors: Sequence[float | None]) -> float | None:
    """Mean of the ±, as the paper's average has it; None unless every entry has one."""
    known = [error for error in errors if error is not None]
    return statistics.fmean(known) if known and len(known) == len(errors) else None


def average(values: Sequence[float | None], errors: Sequence[float | None], of: int, note: str = "") -> Average | None:
    """Plain mean of the values that exist; its ± is the mean of their ±. None without any value."""
    pairs = [(value, error) for value, error in zip(values, errors, strict=True) if value is not None]
    if not pairs:
        return None
    mean = statistics.fmean(value for value, _ in pairs)
    return Average(mean, mean_error([error for _, error in pairs]), len(pairs), of, note)


def difference_in_errors(a: float, error_a: float | None, b: float, error_b: float | None) -> float | None:
    """(a − b) / √(SE_a² + SE_b²); None when an error is unknown or both are zero."""
    if error_a is None or error_b is None:
        return None
    error = math.hypot(error_a, error_b)
    return (a - b) / error if error > 0 else None
