"""Kernels of `midnight.ssl.kernels.folding`: one pass over the weights each."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from midnight.ssl.kernels.on_gpu.launch import kernel
from midnight.ssl.kernels.on_gpu.tokens import total, warps, width

TILE = 64
"""Rows and columns of the weight per program."""


@kernel()
def _fold_inputs(weight, bias, scale, shift, out, out_bias, columns: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < columns
    values = tl.load(weight + row * columns + at, mask=inside, other=0.0).to(tl.float32)
    factors = tl.load(scale + at, mask=inside, other=0.0).to(tl.float32)
    shifts = tl.load(shift + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * columns + at, values * factors, mask=inside)
    tl.store(out_bias + row, tl.load(bias + row).to(tl.float32) + tl.sum(values * shifts))


def fold_inputs(
    weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """See `midnight.ssl.kernels.folding.fold_inputs`."""
    rows, columns = weight.shape
    out = torch.empty(rows, columns, dtype=dtype, device=weight.device)
    out_bias = torch.empty(rows, dtype=dtype, device=weight.device)
    sizes = columns, width(columns)
    _fold_inputs((rows,), weight, bias, scale, shift, out, out_bias, *sizes, warps=warps(columns))
    return out, out_bias


@kernel()
def _fold_outputs(weight, bias, gain, out, out_bias, columns: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < columns
    factor = tl.load(gain + row).to(tl.float32)
    values = tl.load(weight + row * columns + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * columns + at, values * factor, mask=inside)
    tl.store(out_bias + row, tl.load(bias + row).to(tl.float32) * factor)


def fold_outputs(weight: Tensor, bias: Tensor, gain: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """See `midnight.ssl.kernels.folding.fold_outputs`."""
    rows, columns = weight.shape
    out = torch.empty(rows, columns, dtype=dtype, device=weight.device)
    out_bias = torch.empty(rows, dtype=dtype, device=weight.device)
    sizes = columns, width(columns)
    _fold_outputs((rows,), weight, bias, gain, out, out_bias, *sizes, warps=warps(columns))
    return out, out_bias


@kernel("rows")
def _unfold(
    grad, of_bias, weight, scale, shift, along, shifts, rows,
    columns: tl.constexpr, tile: tl.constexpr, by_column: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(1) * tile + tl.arange(0, tile)
    j = tl.program_id(0) * tile + tl.arange(0, tile)
    inside = (i < rows)[:, None] & (j < columns)[None, :]
    at = i.to(tl.int64)[:, None] * columns + j[None, :]
    above = tl.load(grad + at, mask=inside, other=0.0)
    own = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    if by_column:
        factors = tl.load(scale + j, mask=j < columns, other=0.0).to(tl.float32)
        offsets = tl.load(shift + j, mask=j < columns, other=0.0).to(tl.float32)
        bias = tl.load(of_bias + i, mask=i < rows, other=0.0)
        tl.store(grad + at, above * factors[None, :] + bias[:, None] * offsets[None, :], mask=inside)
        sums = tl.program_id(1) * columns + j
        tl.store(along + sums, tl.sum(above * own, axis=0), mask=j < columns)
        tl.store(shifts + sums, tl.sum(bias[:, None] * own, axis=0), mask=j < columns)
    else:
        gains = tl.load(scale + i, mask=i < rows, other=0.0).to(tl.float32)
        tl.store(grad + at, above * gains[:, None], mask=inside)
        tl.store(along + tl.program_id(0) * rows + i, tl.sum(above * own, axis=1), mask=i < rows)


def unfold_inputs(
    of_weight: Tensor, of_bias: Tensor, weight: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of weight (in place of `of_weight`), scale and shift through `fold_inputs`."""
    rows, columns = weight.shape
    grid = triton.cdiv(columns, TILE), triton.cdiv(rows, TILE)
    along = torch.empty(grid[1], columns, dtype=torch.float32, device=weight.device)
    shifts = torch.empty_like(along)
    _unfold(grid, of_weight, of_bias, weight, scale, shift, along, shifts, rows, columns, TILE, True)
    return of_weight, total(along), total(shifts)


def unfold_outputs(of_weight: Tensor, weight: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of weight (in place of `of_weight`), and Σⱼ of_weightᵢⱼ · weightᵢⱼ, through `fold_outputs`."""
    rows, columns = weight.shape
    grid = triton.cdiv(columns, TILE), triton.cdiv(rows, TILE)
    along = torch.empty(grid[0], rows, dtype=torch.float32, device=weight.device)
    _unfold(grid, of_weight, gain, weight, gain, gain, along, along, rows, columns, TILE, False)
    return of_weight, total(along)
