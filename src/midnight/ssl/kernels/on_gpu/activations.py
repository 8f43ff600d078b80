"""Kernels of `midnight.ssl.kernels.activations`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from midnight.ssl.kernels.on_gpu.launch import kernel
from midnight.ssl.kernels.on_gpu.tokens import PROGRAMS, total, width

BLOCK = 1024
"""Columns per program."""


@kernel()
def _activate(hidden, out, columns: tl.constexpr, block: tl.constexpr, gated: tl.constexpr):
    row = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < columns
    if gated:
        first = tl.load(hidden + row * 2 * columns + at, mask=inside, other=0.0).to(tl.float32)
        second = tl.load(hidden + row * 2 * columns + columns + at, mask=inside, other=0.0).to(tl.float32)
        result = first * tl.sigmoid(first) * second
    else:
        first = tl.load(hidden + row * columns + at, mask=inside, other=0.0).to(tl.float32)
        result = 0.5 * first * (1.0 + tl.erf(first * 0.7071067811865476))
    tl.store(out + row * columns + at, result, mask=inside)


def activate(hidden: Tensor, gated: bool) -> Tensor:
    """See `midnight.ssl.kernels.activations.activate`."""
    count, columns = len(hidden), hidden.shape[1] // (2 if gated else 1)
    out = torch.empty(count, columns, dtype=hidden.dtype, device=hidden.device)
    block = min(BLOCK, width(columns))
    _activate((triton.cdiv(columns, block), count), hidden, out, columns, block, gated)
    return out


@kernel("count", "programs")
def _activate_backward(
    grad, hidden, below, out, sums, count, programs,
    columns: tl.constexpr, block: tl.constexpr, gated: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < columns
    wide = columns * 2 if gated else columns
    total = tl.zeros((block,), tl.float32)
    others = tl.zeros((block,), tl.float32)
    for row in range(program, count, programs):
        over = tl.load(grad + row * columns + at, mask=inside, other=0.0).to(tl.float32)
        first = tl.load(hidden + row * wide + at, mask=inside, other=0.0).to(tl.float32)
        if gated:
            second = tl.load(hidden + row * wide + columns + at, mask=inside, other=0.0).to(tl.float32)
            share = tl.sigmoid(first)
            silu = first * share
            result = silu * second
            of_first = over * second * share * (1.0 + first * (1.0 - share))
            of_second = over * silu
            tl.store(below + row * wide + columns + at, of_second, mask=inside)
            others += of_second
        else:
            share = 0.5 * (1.0 + tl.erf(first * 0.7071067811865476))
            result = first * share
            of_first = over * (share + first * 0.3989422804014327 * tl.exp(-0.5 * first * first))
        tl.store(below + row * wide + at, of_first, mask=inside)
        tl.store(out + row * columns + at, result, mask=inside)
        total += of_first
    tl.store(sums + program * wide + at, total, mask=inside)
    if gated:
        tl.store(sums + program * wide + columns + at, others, mask=inside)


def activate_backward(grad: Tensor, hidden: Tensor, gated: bool) -> tuple[Tensor, Tensor, Tensor]:
    """See `midnight.ssl.kernels.activations.activate_backward`."""
    count, columns = grad.shape
    below, out = torch.empty_like(hidden), torch.empty(count, columns, dtype=hidden.dtype, device=hidden.device)
    block = min(BLOCK, width(columns))
    blocks = triton.cdiv(columns, block)
    programs = max(1, min(count, 2 * PROGRAMS // blocks))
    sums = torch.empty(programs, hidden.shape[1], dtype=torch.float32, device=hidden.device)
    _activate_backward((blocks, programs), grad, hidden, below, out, sums, count, programs, columns, block, gated)
    return below, out, total(sums)
