"""The same with worker processes: our stream and the peer's own dataset, each in a DataLoader; and with threads."""

import contextlib
import queue
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from . import ours, peer

WORKERS = 2
BATCH = 32
PREFETCH = 2
# Batches that are dropped before the clock starts: those that workers had time to prepare meanwhile.
WARM_UP = WORKERS * PREFETCH + 2

Loader = tuple[Callable[[], Iterable[dict[str, Any]]], int]
"""What makes a loader, and the batches of warm-up that it needs."""


def our_loader(index: Path, setting: ours.Setting) -> "DataLoader[Any]":
    """Whole batches from our stream."""
    stream = ours.make_stream(index, setting, batch=BATCH)
    return DataLoader(stream, batch_size=None, num_workers=WORKERS, prefetch_factor=PREFETCH)


def peer_loader(slides: list[Path]) -> "DataLoader[Any]":
    """The peer's dataset, gathered by the DataLoader as its documentation does."""
    data = peer.dataset(slides, ours.CROPS)
    return DataLoader(data, batch_size=BATCH, num_workers=WORKERS, prefetch_factor=PREFETCH)


def our_threads(index: Path, setting: ours.Setting) -> Iterator[dict[str, Any]]:
    """Batches from as many threads as there would be workers, each with a stream of its own."""
    ready: queue.Queue[dict[str, Any]] = queue.Queue(WORKERS * PREFETCH)
    over = threading.Event()

    def run(rank: int) -> None:
        batches = iter(ours.make_stream(index, setting, batch=BATCH, rank=rank, world=WORKERS))
        while not over.is_set():
            ready.put(next(batches))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(WORKERS)]
    for thread in threads:
        thread.start()
    try:
        while True:
            yield ready.get(timeout=60)
    finally:
        over.set()
        while any(thread.is_alive() for thread in threads):
            with contextlib.suppress(queue.Empty):
                ready.get(timeout=0.05)


def throughput(loader: Iterable[dict[str, Any]], seconds: float, warm_up: int = 0) -> float:
    """Tiles/s of a fresh loader; its start, and `warm_up` batches of that, are not counted."""
    batches = iter(loader)
    for _ in range(WARM_UP + warm_up):
        next(batches)
    tiles, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        tiles += _count(next(batches))
    return tiles / (time.perf_counter() - start)


def _count(batch: dict[str, Any]) -> int:
    return len(next(value for value in batch.values() if isinstance(value, torch.Tensor)))


def measure(loaders: dict[str, Loader], repetitions: int, seconds: float) -> dict[str, float]:
    """Median tiles/s of each, in turn."""
    found: dict[str, list[float]] = {name: [] for name in loaders}
    with tqdm(total=len(loaders) * repetitions, desc="workers", unit="run") as bar:
        for _ in range(repetitions):
            for name, (make, warm_up) in loaders.items():
                bar.set_postfix_str(name)
                found[name].append(throughput(make(), seconds, warm_up))
                bar.update()
    return {name: round(statistics.median(values), 2) for name, values in found.items()}


def report(index: Path, slides: list[Path], settings: dict[str, ours.Setting], repetitions: int, seconds: float) -> Any:
    """Tiles/s of all with 2 workers in mode c (the first also with threads), and ours as multiples of the peer's."""
    loaders: dict[str, Loader] = {"peer": (partial(peer_loader, slides), 0)}
    threaded = next(iter(settings))
    loaders[f"{threaded}, threads"] = partial(our_threads, index, settings[threaded]), 0
    for name, setting in settings.items():
        loaders[name] = partial(our_loader, index, setting), setting.warm_up
    speeds = measure(loaders, repetitions, seconds)
    ratios = {name: round(speed / speeds["peer"], 2) for name, speed in speeds.items() if name != "peer"}
    return {"workers": WORKERS, "batch": BATCH, "tiles_per_s": speeds, "ratio": ratios}
