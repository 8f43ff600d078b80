"""Interleaved repetitions of several sides, their medians and ratios; one pinned core."""

import contextlib
import os
import statistics
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import torch
from tqdm import tqdm

Side = Generator[int, None, None]
"""What is measured: each step does some work and says how many tiles it gave."""


@dataclass(frozen=True)
class Reading:
    """One repetition: accepted tiles, seconds by the wall clock and of CPU (all threads)."""

    tiles: int
    wall: float
    cpu: float


def drive(side: Side, seconds: float) -> Reading:
    """Steps of a side until `seconds` are over; a started step is finished."""
    tiles, cpu, start = 0, time.process_time(), time.perf_counter()
    while (wall := time.perf_counter() - start) < seconds or not tiles:
        tiles += next(side)
    wall = time.perf_counter() - start
    return Reading(tiles, wall, time.process_time() - cpu)


def interleave(sides: Mapping[str, Side], repetitions: int, seconds: float) -> dict[str, list[Reading]]:
    """Drive all sides in turn, `repetitions` times each, after one more that does not count."""
    found: dict[str, list[Reading]] = {name: [] for name in sides}
    with tqdm(total=len(sides) * (repetitions + 1), desc="tiles", unit="run") as bar:
        for number in range(repetitions + 1):
            for name, side in sides.items():
                bar.set_postfix_str(name)
                reading = drive(side, seconds)
                if number:
                    found[name].append(reading)
                bar.update()
    return found


def summarise(readings: list[Reading]) -> dict[str, float]:
    """Medians: tiles/s, ms per tile by the wall clock and of CPU; spread = (largest − smallest) / median."""
    speeds = [reading.tiles / reading.wall for reading in readings]
    median = statistics.median(speeds)
    wall, cpu = ([getattr(one, clock) / one.tiles for one in readings] for clock in ("wall", "cpu"))
    return {
        "tiles_per_s": round(median, 2),
        "wall_ms": round(1000 * statistics.median(wall), 4),
        "cpu_ms": round(1000 * statistics.median(cpu), 4),
        "spread": round((max(speeds) - min(speeds)) / median, 3),
        "repetitions": len(readings),
    }


def compare(ours: Mapping[str, float], peer: Mapping[str, float], goal: float | None = None) -> dict[str, Any]:
    """How many times as fast ours is, by the wall clock and by CPU time; whether the wall clock reaches the goal."""
    ratio = ours["tiles_per_s"] / peer["tiles_per_s"]
    found: dict[str, Any] = {"ratio": round(ratio, 2), "ratio_cpu": round(peer["cpu_ms"] / ours["cpu_ms"], 2)}
    return found if goal is None else found | {"goal": goal, "reached": ratio >= goal}


@contextlib.contextmanager
def one_core() -> Iterator[int | None]:
    """Pin this process to one core and its libraries to one thread; None where cores can't be chosen."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    allowed = os.sched_getaffinity(0)
    core = max(allowed)
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, allowed)
