"""What a step costs: time, arithmetic, memory, operations."""

import contextlib
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from tiles_support.memory import in_child, peak_rss, reset_peak
from tiles_support.timing import Reading, drive, summarise
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from midnight.ssl import bench
from midnight.ssl.model import attention

from .sides import SIDES, Case, Side

CPU = torch.device("cpu")
MATMUL = 2048
"""Side of the matrices that a device's peak is measured with, where no data sheet is at hand."""


def matmul_peak(device: torch.device, seconds: float) -> float:
    """FLOP/s of square matrix products: bfloat16 on a GPU, else float32; the best of many."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(MATMUL, MATMUL, device=device, dtype=dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * MATMUL**3 / best


def peak_of(device: torch.device, seconds: float = 2.0) -> dict[str, Any]:
    """The device's name and FLOP/s, from its data sheet or measured."""
    if device.type == "cuda":
        name, listed = torch.cuda.get_device_name(device), bench.known_gpu(device)
        if listed is not None:
            return {"device": name, "peak_tflops": listed.bfloat16 / 1e12, "from": "data sheet, bfloat16"}
        return {"device": name, "peak_tflops": matmul_peak(device, seconds) / 1e12, "from": "measured, bfloat16"}
    threads = torch.get_num_threads()
    return {"device": f"CPU, {threads} threads", "peak_tflops": matmul_peak(CPU, seconds) / 1e12, "from": "measured"}


@contextlib.contextmanager
def countable_attention(device: torch.device) -> Iterator[None]:
    """Attention by operations that torch's counter knows: its fused ones on a GPU, matrix products on the CPU."""
    fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
    backends = fused if device.type == "cuda" else [SDPBackend.MATH]
    with sdpa_kernel(backends), mock.patch.object(attention, "_use_xformers", return_value=False):
        yield


def flops(side: Side) -> float:
    """Floating-point operations of one step's matrix products, 2 per multiply-add; what is left out is not counted."""
    with countable_attention(side.device), FlopCounterMode(display=False) as counter:
        side.step()
    return float(counter.get_total_flops())


def top_operations(side: Side, count: int = 10) -> list[dict[str, Any]]:
    """The operations (on a GPU kernels) that take most of one step, by their own time."""
    return [row for row in bench.longest(side.step, side.device, count) if row["share"] > 0]


def _peak_in_child(name: str, case: Case) -> dict[str, float]:
    side = SIDES[name](case, CPU)
    reset_peak()
    before = peak_rss()
    side.step()
    return {"peak_mb": peak_rss(), "activations_mb": round(peak_rss() - before, 1)}


def memory_on_cpu(case: Case) -> dict[str, dict[str, float]]:
    """Largest resident size of a process in its first step, and how much of it the step added, MB.

    It forks, so it must come before any computation of the calling process, whose threads would not follow.
    """
    return {name: in_child(_peak_in_child, name, case) for name in SIDES}


def memory_on_gpu(side: Side) -> dict[str, float]:
    """Most that tensors took of the GPU's memory in a step, and how much of it the step added, MB."""
    before = torch.cuda.memory_allocated(side.device)
    torch.cuda.reset_peak_memory_stats(side.device)
    side.step()
    peak = torch.cuda.max_memory_allocated(side.device)
    return {"peak_mb": round(peak / 1e6, 1), "activations_mb": round((peak - before) / 1e6, 1)}


@contextlib.contextmanager
def turn(side: Side) -> Iterator[Side]:
    """A side's turn: on a GPU two giants don't fit, so the one that waits does so in main memory and then warms up."""
    if side.device.type == "cuda":
        side.move(side.device)
        side.step()
    yield side
    if side.device.type == "cuda":
        side.move(CPU)
        torch.cuda.empty_cache()


def _steps(side: Side) -> Iterator[int]:
    while True:
        yield side.step()


def timed(sides: Mapping[str, Side], repetitions: int, seconds: float) -> dict[str, list[Reading]]:
    """Readings of each side, in turn; both have done steps before."""
    found: dict[str, list[Reading]] = {name: [] for name in sides}
    with tqdm(total=len(sides) * repetitions, desc="train step", unit="run") as bar:
        for _ in range(repetitions):
            for name, side in sides.items():
                bar.set_postfix_str(f"{side.case.name}, {name}")
                with turn(side):
                    found[name].append(drive(_steps(side), seconds))  # type: ignore[arg-type]
                bar.update()
    return found


def speeds(readings: Mapping[str, list[Reading]]) -> dict[str, dict[str, float]]:
    """Medians per side: images/s, ms per image by the wall clock and of CPU, spread."""
    found = {}
    for name, values in readings.items():
        summary = summarise(values)
        del summary["tiles_per_s"]  # rounded too much for a CPU
        found[name] = {"images_per_s": round(1000 / summary["wall_ms"], 4), **summary}
    return found


def paired_ratio(ours: list[Reading], plain: list[Reading], clock: str = "wall") -> float:
    """Median over repetitions of how many times as fast ours is than the plain one in the same repetition."""
    costs = [[getattr(reading, clock) / reading.tiles for reading in side] for side in (ours, plain)]
    return round(statistics.median(theirs / mine for mine, theirs in zip(*costs, strict=True)), 3)
