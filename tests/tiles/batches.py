"""Batches of a stream, and what is different about two lists of them."""

import itertools
from collections.abc import Sequence

import torch
from torch.utils.data import DataLoader

from midnight.tiles.stream import Batch, TileStream


def batches(stream: TileStream, count: int, workers: int = 0) -> list[Batch]:
    return list(itertools.islice(DataLoader(stream, batch_size=None, num_workers=workers), count))


def differences(first: Sequence[Batch], second: Sequence[Batch]) -> list[str]:
    """A line for each tensor that differs: how many of its numbers, by how much, in which samples."""
    found = [] if len(first) == len(second) else [f"{len(first)} and {len(second)} batches"]
    for number, (a, b) in enumerate(zip(first, second, strict=False)):
        if a.keys() != b.keys():
            found.append(f"batch {number}: {sorted(a)} and {sorted(b)}")
        found += [f"batch {number}, {_difference(name, a[name], b[name])}" for name in a if not a[name].equal(b[name])]
    return found


def _difference(name: str, a: torch.Tensor, b: torch.Tensor) -> str:
    if a.shape != b.shape:
        return f"{name}: {tuple(a.shape)} and {tuple(b.shape)}"
    apart = (a.double() - b.double()).abs()
    samples = apart.reshape(len(a), -1).amax(1).nonzero().flatten().tolist()
    return f"{name}: {int((apart > 0).sum())} of {a.numel()}, up to {apart.max():g}, in samples {samples}"
