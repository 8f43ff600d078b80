"""Kernels of `midnight.ssl.kernels.directions`: one row per program."""

import torch
import triton.language as tl
from torch import Tensor

from midnight.ssl.kernels import LEAST_NORM
from midnight.ssl.kernels.on_gpu.launch import kernel
from midnight.ssl.kernels.on_gpu.tokens import width


@kernel()
def _directions(rows, lengths, out, eps, columns: tl.constexpr, block: tl.constexpr, scaled: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < columns
    values = tl.load(rows + row * columns + at, mask=inside, other=0.0)
    factor = 1.0 / tl.maximum(tl.sqrt(tl.sum(values * values)), eps)
    if scaled:
        factor = factor * tl.load(lengths + row)
    tl.store(out + row * columns + at, values * factor, mask=inside)


@kernel()
def _backward(
    grad, rows, lengths, below, of_lengths, eps, columns: tl.constexpr, block: tl.constexpr, scaled: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < columns
    values = tl.load(rows + row * columns + at, mask=inside, other=0.0)
    above = tl.load(grad + row * columns + at, mask=inside, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.maximum(tl.sqrt(tl.sum(values * values)), eps)
    unit = values * inverse
    along = tl.sum(unit * above)
    if scaled:
        inverse = inverse * tl.load(lengths + row)
    tl.store(below + row * columns + at, (above - unit * along) * inverse, mask=inside)
    tl.store(of_lengths + row, along)


def _sizes(rows: Tensor, lengths: Tensor | None) -> tuple[int, int, bool]:
    return rows.shape[1], width(rows.shape[1]), lengths is not None


def scaled_directions(rows: Tensor, lengths: Tensor | None, dtype: torch.dtype) -> Tensor:
    """See `midnight.ssl.kernels.directions.scaled_directions`."""
    out = torch.empty(rows.shape, dtype=dtype, device=rows.device)
    given = rows if lengths is None else lengths
    _directions((len(rows),), rows, given, out, LEAST_NORM, *_sizes(rows, lengths), warps=1)
    return out


def scaled_directions_backward(grad: Tensor, rows: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """See `midnight.ssl.kernels.directions.scaled_directions_backward`."""
    below, of_lengths = torch.empty_like(rows), torch.empty(len(rows), 1, dtype=torch.float32, device=rows.device)
    given = rows if lengths is None else lengths
    tensors = (grad.contiguous(), rows, given, below, of_lengths)
    _backward((len(rows),), *tensors, LEAST_NORM, *_sizes(rows, lengths), warps=1)
    return below, of_lengths
