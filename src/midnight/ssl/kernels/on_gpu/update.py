"""AdamW, gradient clipping and the teacher's moving average in one pass over all tensors.

torch's fused functions pass over the gradients three times (norm, clip, step) and over the weights twice (step,
teacher). What is plain torch beside this is torch's own: `midnight.ssl.update.Update`.
"""

import itertools
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from midnight.ssl.kernels.on_gpu.launch import kernel
from midnight.ssl.kernels.update import CHUNK, Chunks

BLOCK = 1024
"""Numbers at a time."""


@kernel()
def _squares(pointers, tensors, starts, sizes, out, chunk: tl.constexpr, block: tl.constexpr):
    number = tl.program_id(0)
    index, start = tl.load(tensors + number), tl.multiple_of(tl.load(starts + number), 16)
    grad = tl.multiple_of(tl.load(pointers + index).to(tl.pointer_type(tl.float32)), 16)
    size = tl.load(sizes + index)
    total = tl.zeros((block,), tl.float32)
    if start + chunk <= size:
        for offset in range(0, chunk, block):
            values = tl.load(grad + start + offset + tl.arange(0, block))
            total += values * values
    else:
        for offset in range(0, chunk, block):
            at = start + offset + tl.arange(0, block)
            values = tl.load(grad + at, mask=at < size, other=0.0)
            total += values * values
    tl.store(out + number, tl.sum(total))


def norms(gradients: Tensor, chunks: Chunks, parts: Sequence[int]) -> Tensor:
    """Norms float32 [parts] of float32 tensors that follow each other part by part.

    Args:
        gradients: their addresses, int64 [n].
        chunks: theirs.
        parts: first tensor of each part, and n at the end.
    """
    squares = torch.empty(len(chunks.tensor), dtype=torch.float32, device=gradients.device)
    _squares((len(squares),), gradients, chunks.tensor, chunks.start, chunks.size, squares, CHUNK, BLOCK)
    bounds = [chunks.first[tensor] for tensor in parts]
    return torch.stack([squares[a:b].sum() for a, b in itertools.pairwise(bounds)]).sqrt()


@triton.jit
def _one(
    weight, grad, first, second, teacher, at, mask, clip, decay, step_size, correction, beta1, beta2, eps, share,
    masked: tl.constexpr,
):  # fmt: skip
    if masked:
        w, g = tl.load(weight + at, mask=mask), tl.load(grad + at, mask=mask) * clip
        m, v = tl.load(first + at, mask=mask), tl.load(second + at, mask=mask)
        t = tl.load(teacher + at, mask=mask)
    else:
        w, g, m, v = tl.load(weight + at), tl.load(grad + at) * clip, tl.load(first + at), tl.load(second + at)
        t = tl.load(teacher + at)
    m = m + (g - m) * (1.0 - beta1)
    v = v * beta2 + g * g * (1.0 - beta2)
    w = w * decay - step_size * m / (tl.sqrt(v) / correction + eps)
    t = t + (w - t) * share
    if masked:
        tl.store(weight + at, w, mask=mask)
        tl.store(first + at, m, mask=mask)
        tl.store(second + at, v, mask=mask)
        tl.store(teacher + at, t, mask=mask)
    else:
        tl.store(weight + at, w)
        tl.store(first + at, m)
        tl.store(second + at, v)
        tl.store(teacher + at, t)


@kernel("count")
def _update(
    pointers, numbers, clips, tensors, starts, sizes, count, beta1, beta2, eps, share,
    chunk: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(0)
    index, start = tl.load(tensors + number), tl.multiple_of(tl.load(starts + number), 16)
    size = tl.load(sizes + index)
    weight = tl.multiple_of(tl.load(pointers + index).to(tl.pointer_type(tl.float32)), 16)
    grad = tl.multiple_of(tl.load(pointers + count + index).to(tl.pointer_type(tl.float32)), 16)
    first = tl.multiple_of(tl.load(pointers + 2 * count + index).to(tl.pointer_type(tl.float32)), 16)
    second = tl.multiple_of(tl.load(pointers + 3 * count + index).to(tl.pointer_type(tl.float32)), 16)
    teacher = tl.multiple_of(tl.load(pointers + 4 * count + index).to(tl.pointer_type(tl.float32)), 16)
    clip = tl.load(clips + index)
    decay, step_size = tl.load(numbers + index), tl.load(numbers + count + index)
    correction = tl.load(numbers + 2 * count + index)
    whole = start + chunk <= size
    if whole:  # without masks, memory is read 16 bytes at a time
        for offset in range(0, chunk, block):
            at = start + offset + tl.arange(0, block)
            _one(weight, grad, first, second, teacher, at, whole, clip, decay, step_size, correction,
                 beta1, beta2, eps, share, False)  # fmt: skip
    else:
        for offset in range(0, chunk, block):
            at = start + offset + tl.arange(0, block)
            _one(weight, grad, first, second, teacher, at, at < size, clip, decay, step_size, correction,
                 beta1, beta2, eps, share, True)  # fmt: skip


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
    sizes = (pointers.shape[1], *betas, eps, share, CHUNK, BLOCK)
    _update((len(chunks.tensor),), pointers, numbers, clips, *chunks[:3], *sizes)
