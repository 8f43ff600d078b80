"""Kernels of `midnight.ssl.kernels.tokens`: one row per program, whose values stay in registers."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from midnight.ssl.kernels.on_gpu.launch import kernel

PROGRAMS = 1056
"""That share the rows where column sums are kept: 8 for each of an H100's 132 multiprocessors."""


def width(columns: int) -> int:
    """The power of 2 that holds a row."""
    return int(triton.next_power_of_2(columns))


def warps(columns: int) -> int:
    """For a row of so many columns: from 1 to 8 warps, whose threads load 16 bytes of 16-bit values at a time."""
    return min(8, max(1, width(columns) // 256))


@kernel("count")
def _total(parts, out, count, columns: tl.constexpr, lines: tl.constexpr, block: tl.constexpr):
    at = tl.program_id(0) * block + tl.arange(0, block)
    line = tl.arange(0, lines)
    total = tl.zeros((lines, block), tl.float32)
    for first in range(0, count, lines):
        inside = (first + line < count)[:, None] & (at < columns)[None, :]
        total += tl.load(parts + (first + line)[:, None] * columns + at[None, :], mask=inside, other=0.0)
    tl.store(out + at, tl.sum(total, axis=0), mask=at < columns)


def total(parts: Tensor) -> Tensor:
    """float32 [C] of what programs have summed up, [programs, C]: one small kernel, where torch needs two launches."""
    count, columns = parts.shape
    out = torch.empty(columns, dtype=torch.float32, device=parts.device)
    _total((triton.cdiv(columns, 32),), parts, out, count, columns, 64, 32)
    return out


@kernel()
def _gather_norm(stream, rows, out, rstd, eps, columns: tl.constexpr, block: tl.constexpr, some: tl.constexpr):
    number = tl.program_id(0).to(tl.int64)
    row = tl.load(rows + number).to(tl.int64) if some else number
    at = tl.arange(0, block)
    inside = at < columns
    values = tl.load(stream + row * columns + at, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, values - tl.sum(values) / columns, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred) / columns + eps)
    tl.store(out + number * columns + at, centred * inverse, mask=inside)
    tl.store(rstd + number, inverse)


def gather_norm(stream: Tensor, rows: Tensor | None, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """See `midnight.ssl.kernels.tokens.gather_norm`."""
    count, columns = len(stream) if rows is None else len(rows), stream.shape[1]
    out = torch.empty(count, columns, dtype=dtype, device=stream.device)
    rstd = torch.empty(count, dtype=torch.float32, device=stream.device)
    # Fewer warps have more loads under way each: .048 ms with 2, .057 with 8 for 27,297 rows of 1,536 on an H200.
    few, sizes = max(1, warps(columns) // 4), (columns, width(columns))
    chosen = stream if rows is None else rows
    _gather_norm((count,), stream, chosen, out, rstd, eps, *sizes, rows is not None, warps=few)
    return out, rstd


@kernel()
def _norm_backward(grad, above, normed, rstd, rows, columns: tl.constexpr, block: tl.constexpr, some: tl.constexpr):
    number = tl.program_id(0).to(tl.int64)
    row = tl.load(rows + number).to(tl.int64) if some else number
    at = tl.arange(0, block)
    inside = at < columns
    over = tl.load(above + number * columns + at, mask=inside, other=0.0).to(tl.float32)
    unit = tl.load(normed + number * columns + at, mask=inside, other=0.0).to(tl.float32)
    before = tl.load(grad + row * columns + at, mask=inside, other=0.0).to(tl.float32)
    mean, along = tl.sum(over) / columns, tl.sum(over * unit) / columns
    own = tl.load(rstd + number) * (over - mean - unit * along)
    tl.store(grad + row * columns + at, before + own, mask=inside)


def norm_backward_(grad: Tensor, of_normed: Tensor, normed: Tensor, rstd: Tensor, rows: Tensor | None) -> None:
    """See `midnight.ssl.kernels.tokens.norm_backward_`."""
    count, columns = normed.shape
    sizes, chosen = (columns, width(columns)), grad if rows is None else rows
    _norm_backward((count,), grad, of_normed, normed, rstd, chosen, *sizes, rows is not None, warps=warps(columns))


@kernel()
def _add(
    stream, branch, rows, scales, columns: tl.constexpr, block: tl.constexpr, some: tl.constexpr, scaled: tl.constexpr
):
    number = tl.program_id(0).to(tl.int64)
    row = tl.load(rows + number).to(tl.int64) if some else number
    at = tl.arange(0, block)
    inside = at < columns
    added = tl.load(branch + number * columns + at, mask=inside, other=0.0).to(tl.float32)
    if scaled:
        added = added * tl.load(scales + number)
    before = tl.load(stream + row * columns + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(stream + row * columns + at, before + added, mask=inside)


def add_(stream: Tensor, branch: Tensor, rows: Tensor | None, scales: Tensor | None) -> None:
    """See `midnight.ssl.kernels.tokens.add_`."""
    count, columns = branch.shape
    sizes, given = (columns, width(columns)), (rows is not None, scales is not None)
    chosen, factors = (branch if value is None else value for value in (rows, scales))
    _add((count,), stream, branch, chosen, factors, *sizes, *given, warps=warps(columns))


@kernel("count", "programs")
def _take(
    grad,
    rows,
    scales,
    out,
    sums,
    count,
    programs,
    columns: tl.constexpr,
    block: tl.constexpr,
    some: tl.constexpr,
    scaled: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < columns
    total = tl.zeros((block,), tl.float32)
    for number in range(program, count, programs):
        row = tl.load(rows + number).to(tl.int64) if some else number
        values = tl.load(grad + row * columns + at, mask=inside, other=0.0).to(tl.float32)
        if scaled:
            values = values * tl.load(scales + number)
        tl.store(out + number * columns + at, values, mask=inside)
        total += values
    tl.store(sums + program * columns + at, total, mask=inside)


def take(grad: Tensor, rows: Tensor | None, scales: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """See `midnight.ssl.kernels.tokens.take`."""
    count, columns = len(grad) if rows is None else len(rows), grad.shape[1]
    out = torch.empty(count, columns, dtype=dtype, device=grad.device)
    programs = min(PROGRAMS, count)
    sums = torch.empty(programs, columns, dtype=torch.float32, device=grad.device)
    sizes, given = (columns, width(columns)), (rows is not None, scales is not None)
    chosen, factors = (grad if value is None else value for value in (rows, scales))
    _take((programs,), grad, chosen, factors, out, sums, count, programs, *sizes, *given, warps=warps(columns))
    return out, total(sums)
