"""Kernels of `midnight.ssl.kernels.attention`, after FlashAttention-2 [Dao 2023], for short sequences.

The backward pass writes into one tensor for queries, keys and values, and needs no atomic additions: a program deals
with its tile once as keys and values, once as queries.
"""

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from midnight.ssl.kernels.on_gpu.launch import kernel
from midnight.ssl.kernels.on_gpu.tokens import total
from midnight.ssl.model.packing import Packing


class Tiles(NamedTuple):
    """Where the crops' tiles lie, int32 [tiles] each: first token of the crop, its length, first token in the crop."""

    start: Tensor
    length: Tensor
    first: Tensor


@functools.lru_cache(maxsize=16)
def tiles_of(layout: Packing, size: int, device: torch.device) -> Tiles:
    """Of a layout, `size` tokens each; kept, since to make them copies to the device."""
    rows, start = [], 0
    for group in layout:
        for _ in range(group.samples):
            rows += [(start, group.length, first) for first in range(0, group.length, size)]
            start += group.length
    return Tiles(*torch.tensor(rows, dtype=torch.int32, device=device).T.contiguous())


class Launch(NamedTuple):
    """Tokens of a crop that a program deals with, and of the others at a time; its warps; loads under way at once."""

    tile: int
    step: int
    warps: int
    stages: int


FORWARD, BACKWARD = Launch(64, 32, 4, 3), Launch(64, 64, 4, 1)
"""The fastest of those that `benchmarks/gpu.py` tries for a ViT-g's crops on an H200."""


@kernel("count")
def _attend(
    qkv, out, lse, starts, lengths, firsts, count, factor,
    heads: tl.constexpr, dim: tl.constexpr, tile: tl.constexpr, step: tl.constexpr,
):  # fmt: skip
    head, number = tl.program_id(0), tl.program_id(1)
    start, length = tl.load(starts + number).to(tl.int64), tl.load(lengths + number)
    stride: tl.constexpr = 3 * heads * dim
    base = qkv + start * stride + head * dim
    row = tl.load(firsts + number) + tl.arange(0, tile)
    at = tl.arange(0, dim)
    query = tl.load(base + row[:, None] * stride + at[None, :], mask=row[:, None] < length, other=0.0)
    top = tl.full((tile,), -float("inf"), tl.float32)
    total = tl.zeros((tile,), tl.float32)
    mixed = tl.zeros((tile, dim), tl.float32)
    for other in range(0, length, step):
        column = other + tl.arange(0, step)
        inside = column < length
        key = tl.load(base + heads * dim + column[None, :] * stride + at[:, None], mask=inside[None, :], other=0.0)
        scores = tl.dot(query, key, input_precision="ieee") * factor
        scores = tl.where(inside[None, :], scores, -float("inf"))
        higher = tl.maximum(top, tl.max(scores, axis=1))
        weights = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(weights, axis=1)
        value = tl.load(
            base + 2 * heads * dim + column[:, None] * stride + at[None, :], mask=inside[:, None], other=0.0
        )
        mixed = mixed * shrink[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        top = higher
    target = out + (start + row)[:, None] * (heads * dim) + head * dim + at[None, :]
    tl.store(target, mixed / total[:, None], mask=row[:, None] < length)
    tl.store(lse + head.to(tl.int64) * count + start + row, top + tl.log2(total), mask=row < length)


@kernel("count")
def _products(grad, out, delta, count, heads: tl.constexpr, dim: tl.constexpr, tile: tl.constexpr):
    head = tl.program_id(0)
    row = tl.program_id(1) * tile + tl.arange(0, tile)
    at = row.to(tl.int64)[:, None] * (heads * dim) + head * dim + tl.arange(0, dim)[None, :]
    inside = row[:, None] < count
    product = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32) * tl.load(out + at, mask=inside, other=0.0).to(
        tl.float32
    )
    tl.store(delta + head.to(tl.int64) * count + row, tl.sum(product, axis=1), mask=row < count)


@triton.jit
def _of_keys_and_values(
    base, over, lse, delta, place, row, length, factor,
    stride: tl.constexpr, wide: tl.constexpr, dim: tl.constexpr, tile: tl.constexpr, step: tl.constexpr,
):  # fmt: skip
    """A tile's tokens as keys and values: what comes back from all queries of their crop."""
    here, at = row < length, tl.arange(0, dim)
    key = tl.load(base + wide + place, mask=here[:, None], other=0.0)
    value = tl.load(base + 2 * wide + place, mask=here[:, None], other=0.0)
    of_key = tl.zeros((tile, dim), tl.float32)
    of_value = tl.zeros((tile, dim), tl.float32)
    for other in range(0, length, step):
        line = other + tl.arange(0, step)
        inside = line < length
        query = tl.load(base + line[:, None] * stride + at[None, :], mask=inside[:, None], other=0.0)
        above = tl.load(over + line[:, None] * wide + at[None, :], mask=inside[:, None], other=0.0)
        normaliser = tl.load(lse + line, mask=inside, other=float("inf"))
        along = tl.load(delta + line, mask=inside, other=0.0)
        weights = tl.exp2(tl.dot(key, tl.trans(query), input_precision="ieee") * factor - normaliser[None, :])
        of_value += tl.dot(weights.to(above.dtype), above, input_precision="ieee")
        of_weights = tl.dot(value, tl.trans(above), input_precision="ieee")
        of_scores = (weights * (of_weights - along[None, :])).to(query.dtype)
        of_key += tl.dot(of_scores, query, input_precision="ieee")
    return of_key, of_value


@triton.jit
def _of_queries(
    base, over, lse, delta, place, row, length, factor,
    stride: tl.constexpr, wide: tl.constexpr, dim: tl.constexpr, tile: tl.constexpr, step: tl.constexpr,
):  # fmt: skip
    """The same tokens as queries: what comes back from all keys and values."""
    here, at = row < length, tl.arange(0, dim)
    query = tl.load(base + place, mask=here[:, None], other=0.0)
    above = tl.load(over + row[:, None] * wide + at[None, :], mask=here[:, None], other=0.0)
    normaliser = tl.load(lse + row, mask=here, other=float("inf"))
    along = tl.load(delta + row, mask=here, other=0.0)
    of_query = tl.zeros((tile, dim), tl.float32)
    for other in range(0, length, step):
        line = other + tl.arange(0, step)
        inside = line < length
        elsewhere = line[:, None] * stride + at[None, :]
        key = tl.load(base + wide + elsewhere, mask=inside[:, None], other=0.0)
        value = tl.load(base + 2 * wide + elsewhere, mask=inside[:, None], other=0.0)
        weights = tl.exp2(tl.dot(query, tl.trans(key), input_precision="ieee") * factor - normaliser[:, None])
        of_weights = tl.dot(above, tl.trans(value), input_precision="ieee")
        of_scores = weights * (of_weights - along[:, None])
        of_query += tl.dot(of_scores.to(key.dtype), key, input_precision="ieee")
    return of_query


@triton.jit
def _put(below, sums, values, here):
    """Store a tile's gradient, and its sum over tokens."""
    tl.store(below, values, mask=here[:, None])
    tl.store(sums, tl.sum(tl.where(here[:, None], values, 0.0), axis=0))


@kernel("count")
def _attend_backward(
    qkv, grad, below, sums, lse, delta, starts, lengths, firsts, count, factor, scale,
    heads: tl.constexpr, dim: tl.constexpr, tile: tl.constexpr, step: tl.constexpr,
):  # fmt: skip
    head, number = tl.program_id(0), tl.program_id(1)
    start, length = tl.load(starts + number).to(tl.int64), tl.load(lengths + number)
    stride: tl.constexpr = 3 * heads * dim
    wide: tl.constexpr = heads * dim
    base, over = qkv + start * stride + head * dim, grad + start * wide + head * dim
    own_lse = lse + head.to(tl.int64) * count + start
    own_delta = delta + head.to(tl.int64) * count + start
    row = tl.load(firsts + number) + tl.arange(0, tile)
    here, at = row < length, tl.arange(0, dim)
    place = row[:, None] * stride + at[None, :]
    result = below + start * stride + head * dim + place
    total_at = sums + number.to(tl.int64) * stride + head * dim + at
    of_key, of_value = _of_keys_and_values(
        base, over, own_lse, own_delta, place, row, length, factor, stride, wide, dim, tile, step
    )
    _put(result + wide, total_at + wide, of_key * scale, here)
    _put(result + 2 * wide, total_at + 2 * wide, of_value, here)
    of_query = _of_queries(base, over, own_lse, own_delta, place, row, length, factor, stride, wide, dim, tile, step)
    _put(result, total_at, of_query * scale, here)


_LOG2_E = 1.4426950408889634
_BLOCK = 64
"""Tokens per program of `_products`."""


def attend(qkv: Tensor, heads: int, layout: Packing, launch: Launch | None = None) -> tuple[Tensor, Tensor]:
    """See `midnight.ssl.kernels.attention.attend`; heads must be 16, 32, 64 or 128 wide."""
    tile, step, warps, stages = launch or FORWARD
    count, wide = len(qkv), qkv.shape[1] // 3
    tiles = tiles_of(layout, tile, qkv.device)
    out = torch.empty(count, wide, dtype=qkv.dtype, device=qkv.device)
    lse = torch.empty(heads, count, dtype=torch.float32, device=qkv.device)
    grid, factor = (heads, len(tiles.start)), (wide // heads) ** -0.5 * _LOG2_E
    _attend(grid, qkv, out, lse, *tiles, count, factor, heads, wide // heads, tile, step, warps=warps, stages=stages)
    return out, lse


def attend_backward(
    grad: Tensor,
    qkv: Tensor,
    out: Tensor,
    normalisers: Tensor,
    heads: int,
    layout: Packing,
    launch: Launch | None = None,
) -> tuple[Tensor, Tensor]:
    """See `midnight.ssl.kernels.attention.attend_backward`."""
    tile, step, warps, stages = launch or BACKWARD
    count, dim = len(qkv), qkv.shape[1] // (3 * heads)
    tiles = tiles_of(layout, tile, qkv.device)
    below, delta = torch.empty_like(qkv), torch.empty_like(normalisers)
    _products((heads, triton.cdiv(count, _BLOCK)), grad, out, delta, count, heads, dim, _BLOCK)
    sums = torch.empty(len(tiles.start), qkv.shape[1], dtype=torch.float32, device=qkv.device)
    given = (qkv, grad, below, sums, normalisers, delta, *tiles, count, dim**-0.5 * _LOG2_E, dim**-0.5)
    _attend_backward((heads, len(tiles.start)), *given, heads, dim, tile, step, warps=warps, stages=stages)
    return below, total(sums)
