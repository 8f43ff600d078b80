"""Stochastic depth that saves work: a residual branch sees only the samples that keep it [DINOv2].

A sample's branch is kept with the share 1 − p of its group, exactly (rounded down, at least one sample), and
multiplied by the inverse of that share, so that the mean over draws is the branch itself.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from midnight.ssl.model.packing import Group, Packing, unpack

Kept = tuple[Tensor, ...]
"""For each group, the samples that a branch sees: int64 [kept], no sample twice."""


def kept_count(samples: int, rate: float) -> int:
    """How many of a group's samples keep a branch that is dropped with probability `rate`."""
    return max(1, int(samples * (1 - rate)))


def draw_kept(layout: Packing, rates: Sequence[Sequence[float]], device: torch.device) -> list[list[Kept | None]]:
    """Which samples keep each branch of each block; None where all do.

    All are drawn at once, from torch's generator: blocks are left without randomness, so that recomputing one for
    activation checkpointing needs no generator state, and a GPU sorts once instead of twice per block.

    Args:
        layout: the groups.
        rates: for each block the drop rate of each of its branches.
        device: where the indices are needed.
    """
    if not any(rate > 0 for block in rates for rate in block):
        return [[None] * len(block) for block in rates]
    widest = max(len(block) for block in rates)
    orders = [torch.rand(len(rates), widest, group.samples, device=device).argsort(dim=-1) for group in layout]

    def kept(block: int, branch: int, rate: float) -> Kept | None:
        if rate <= 0:
            return None
        counts = [kept_count(group.samples, rate) for group in layout]
        return tuple(order[block, branch, :count] for order, count in zip(orders, counts, strict=True))

    return [[kept(i, j, rate) for j, rate in enumerate(block)] for i, block in enumerate(rates)]


class Seen(NamedTuple):
    """The tokens that a branch sees: rows int32 [n] of the stream (None: all), factors float32 [n] of what it adds

    (None: 1), and the crops that they are.
    """

    rows: Tensor | None
    scales: Tensor | None
    layout: Packing


def draw_rows(layout: Packing, rates: Sequence[Sequence[float]], device: torch.device) -> list[list[Seen]]:
    """What each branch of each block sees, as tokens: the same samples as `draw_kept` draws, found at once for all.

    Args:
        layout: the groups.
        rates: for each block the drop rate of each of its branches; all are equal.
        device: where the indices are needed.
    """
    rate = rates[0][0]
    if rate <= 0:
        return [[Seen(None, None, layout)] * len(block) for block in rates]
    fewer = tuple(Group(kept_count(group.samples, rate), group.length) for group in layout)
    widest, rows, start = max(len(block) for block in rates), [], 0
    for group, less in zip(layout, fewer, strict=True):
        order = torch.rand(len(rates), widest, group.samples, device=device).argsort(dim=-1)[..., : less.samples]
        tokens = order[..., None] * group.length + torch.arange(start, start + group.length, device=device)
        rows.append(tokens.flatten(-2).int())
        start += group.tokens
    all_rows, scales = torch.cat(rows, dim=-1), _token_scales(layout, fewer, device)
    return [[Seen(all_rows[i, j], scales, fewer) for j in range(len(block))] for i, block in enumerate(rates)]


@functools.lru_cache(maxsize=16)
def _token_scales(layout: Packing, fewer: Packing, device: torch.device) -> Tensor:
    """float32 [n]; kept, since to make them copies to the device."""
    scales = torch.tensor(_scales(layout, fewer), device=device)
    return torch.cat([scale.expand(group.tokens) for scale, group in zip(scales, fewer, strict=True)])


def residual(x: Tensor, layout: Packing, kept: Kept | None, branch: Callable[[Tensor, Packing], Tensor]) -> Tensor:
    """x + branch(x) of packed tokens [N, D]; of the samples `kept` only, if given, scaled to keep the mean."""
    if kept is None:
        return x + branch(x, layout)
    fewer = tuple(Group(len(samples), group.length) for samples, group in zip(kept, layout, strict=True))
    added = branch(_Take.apply(x, layout, fewer, *kept), fewer)
    out: Tensor = _Add.apply(x, added.to(x.dtype), layout, fewer, *kept)
    return out


def _scales(layout: Packing, fewer: Packing) -> list[float]:
    return [group.samples / less.samples for group, less in zip(layout, fewer, strict=True)]


def _take(x: Tensor, layout: Packing, fewer: Packing, kept: Kept, scales: Sequence[float] = ()) -> Tensor:
    """The kept samples' tokens, one after the other, each group times its scale if given."""
    out = x.new_empty(sum(group.tokens for group in fewer), x.shape[-1])
    parts = zip(unpack(out, fewer), unpack(x, layout), kept, strict=True)
    for number, (target, source, samples) in enumerate(parts):
        torch.index_select(source, 0, samples, out=target)
        if scales:
            target.mul_(scales[number])
    return out


def _add_(x: Tensor, added: Tensor, layout: Packing, fewer: Packing, kept: Kept, scales: Sequence[float]) -> Tensor:
    """Add scale · added to the kept samples, in place."""
    groups = zip(unpack(x, layout), unpack(added, fewer), kept, scales, strict=True)
    for target, source, samples, scale in groups:
        target.index_add_(0, samples, source, alpha=scale)
    return x


class _Take(torch.autograd.Function):
    """The kept samples' tokens; by hand, since autograd's way through split and cat copies everything twice more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layout: Packing, fewer: Packing, *kept: Tensor) -> Tensor:
        ctx.layouts = layout, fewer
        ctx.save_for_backward(*kept)
        return _take(x, layout, fewer, kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layout, fewer = ctx.layouts
        kept = ctx.saved_tensors
        out = grad.new_zeros(sum(group.tokens for group in layout), grad.shape[-1])
        return _add_(out, grad, layout, fewer, kept, [1.0] * len(kept)), *[None] * (2 + len(kept))


class _Add(torch.autograd.Function):
    """x plus the scaled branch at the kept samples."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, added: Tensor, layout: Packing, fewer: Packing, *kept: Tensor) -> Tensor:
        ctx.layouts = layout, fewer
        ctx.save_for_backward(*kept)
        return _add_(x.clone(), added, layout, fewer, kept, _scales(layout, fewer))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layout, fewer = ctx.layouts
        kept = ctx.saved_tensors
        taken = _take(grad.contiguous(), layout, fewer, kept, _scales(layout, fewer))
        return grad, taken, *[None] * (2 + len(kept))
