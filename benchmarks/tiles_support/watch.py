"""Samples of memory and file handles over time, and the verdicts on them."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from .memory import handles_of, memory_of

# What counts as flat: the last quarter's median against that of the second, after a warm-up of one quarter.
GROWTH_SHARE = 0.05
# A batch that waits in a queue has a handle for each of its tensors, so their number sways.
MORE_HANDLES = 10


@dataclass(frozen=True)
class Sample:
    """Seconds since the start; per process (this one first) RSS and PSS in MB, handles, handles on slides."""

    seconds: float
    rss: tuple[float, ...]
    pss: tuple[float, ...]
    handles: tuple[int, ...]
    slides: tuple[int, ...]


class Watch:
    """Samples this process and its children."""

    def __init__(self, folder: Path) -> None:
        self.samples: list[Sample] = []
        self._folder, self._start = folder, time.monotonic()

    def sample(self) -> Sample:
        """Take one sample. Raises psutil.Error when a child has just died."""
        pids = [psutil.Process().pid, *sorted(child.pid for child in psutil.Process().children())]
        memory = [memory_of(pid) for pid in pids]
        handles = [handles_of(pid, self._folder) for pid in pids]
        rss, pss = (tuple(one[name] for one in memory) for name in ("rss", "pss"))
        counts = tuple(count for count, _ in handles), tuple(count for _, count in handles)
        self.samples.append(Sample(time.monotonic() - self._start, rss, pss, *counts))
        return self.samples[-1]


def quarters(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """The second and the last quarter of a run."""
    end = samples[-1].seconds
    second = [sample for sample in samples if end / 4 <= sample.seconds < end / 2]
    last = [sample for sample in samples if sample.seconds >= end * 3 / 4]
    return second, last


def memory_verdict(samples: Sequence[Sample], allowed_share: float = GROWTH_SHARE) -> dict[str, Any]:
    """Whether the PSS (RSS where there is none) of all processes together grows by at most a share."""
    name = "pss" if any(samples[-1].pss) else "rss"
    second, last = (_medians([getattr(sample, name) for sample in part]) for part in quarters(samples))
    after = [sample for sample in samples if sample.seconds >= samples[-1].seconds / 4]
    minutes, totals = [sample.seconds / 60 for sample in after], [sum(getattr(sample, name)) for sample in after]
    return {
        "measure": name,
        "second_quarter_mb_per_process": second,
        "last_quarter_mb_per_process": last,
        "slope_mb_per_minute": round(statistics.linear_regression(minutes, totals).slope, 2),
        "peak_rss_mb_per_process": [max(values) for values in zip(*(sample.rss for sample in after), strict=False)],
        "growth": round(sum(last) / sum(second) - 1, 4),
        "allowed_growth": allowed_share,
        "ok": sum(last) <= (1 + allowed_share) * sum(second),
    }


def _medians(rows: Sequence[Sequence[float]]) -> list[float]:
    """The median of each column; rows may differ in length, the shortest counts."""
    return [round(statistics.median(column), 1) for column in zip(*rows, strict=False)]


def handle_verdict(samples: Sequence[Sample], bound: int) -> dict[str, Any]:
    """Whether handles don't grow, and no process holds more than `bound` on slides (descriptors and maps)."""
    second, last = (_medians([(sum(sample.handles),) for sample in part])[0] for part in quarters(samples))
    on_slides = max(max(sample.slides) for sample in samples)
    return {
        "second_quarter": second,
        "last_quarter": last,
        "allowed_more": MORE_HANDLES,
        "most_on_slides_per_process": on_slides,
        "bound": bound,
        "ok": last <= second + MORE_HANDLES and on_slides <= bound,
    }
