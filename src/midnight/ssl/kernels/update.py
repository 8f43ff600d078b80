"""Many tensors as one list of chunks, for kernels that get them by their addresses."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 16384
"""Numbers of a tensor that a program deals with."""


class Chunks(NamedTuple):
    """Where the chunks of n tensors lie.

    Of each chunk: its tensor, int32, and the first of its numbers there, int64. Of each tensor: its size, int64 [n].
    first: number of each tensor's first chunk, and of all chunks at the end.
    """

    tensor: Tensor
    start: Tensor
    size: Tensor
    first: list[int]


def chunks_of(sizes: Sequence[int], device: torch.device) -> Chunks:
    """Of tensors of so many numbers."""
    counts = torch.tensor([-(-size // CHUNK) for size in sizes])
    tensor = torch.repeat_interleave(torch.arange(len(sizes)), counts)
    first = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    start = (torch.arange(len(tensor)) - first[tensor]) * CHUNK
    whole = torch.tensor(list(sizes), dtype=torch.int64)
    return Chunks(tensor.int().to(device), start.to(device), whole.to(device), first.tolist())
