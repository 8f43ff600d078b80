"""AdamW, gradient clipping and the teacher's moving average in one pass over all tensors, given by their addresses.

torch's fused functions pass over the gradients three times (norm, clip, step) and over the weights twice (step,
teacher). What is plain torch beside this is torch's own: `midnight.ssl.update.Update`.
"""

import itertools
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


def norms(pointers: Tensor, chunks: Chunks, parts: Sequence[int]) -> Tensor:
    """Norms float32 [parts] of float32 tensors that follow each other part by part.

    Args:
        pointers: their addresses, int64 [n].
        chunks: theirs.
        parts: first tensor of each part, and n at the end.
    """
    from midnight.ssl.kernels.on_gpu import update

    squares = update.squares(pointers, chunks)
    bounds = [chunks.first[tensor] for tensor in parts]
    return torch.stack([squares[a:b].sum() for a, b in itertools.pairwise(bounds)]).sqrt()


def update_(
    pointers: Tensor,
    numbers: Tensor,
    clips: Tensor,
    chunks: Chunks,
    betas: tuple[float, float],
    eps: float,
    share: float,
) -> None:
    """A step of AdamW and of the teacher, in place.

    Args:
        pointers: int64 [5, n], addresses of weights, gradients, their moving means and those of their squares, and the
            teacher's weights; all float32 and contiguous.
        numbers: float32 [3, n]: 1 − lr · weight decay; lr / (1 − β₁ᵗ); √(1 − β₂ᵗ).
        clips: float32 [n], by which gradients are multiplied.
        chunks: those of the tensors.
        betas: AdamW's.
        eps: AdamW's.
        share: of the student in the teacher's moving average.
    """
    from midnight.ssl.kernels.on_gpu import update

    update.update_(pointers, numbers, clips, chunks, betas, eps, share)
