"""Crops of several sizes as one sequence of tokens, so that each linear layer runs once for all of them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Group(NamedTuple):
    """Crops of one size: so many samples of `length` tokens each."""

    samples: int
    length: int

    @property
    def tokens(self) -> int:
        """Tokens of all samples."""
        return self.samples * self.length


Packing = tuple[Group, ...]
"""The groups of a packed sequence, in order."""


def pack(groups: Sequence[Tensor]) -> tuple[Tensor, Packing]:
    """Tokens of each crop size [B_g, T_g, D] as one sequence [Σ B_g·T_g, D], and where each lies."""
    layout = tuple(Group(*tokens.shape[:2]) for tokens in groups)
    return torch.cat([tokens.flatten(0, 1) for tokens in groups]), layout


def unpack(packed: Tensor, layout: Packing) -> list[Tensor]:
    """The groups [B_g, T_g, ...] of a packed sequence [Σ B_g·T_g, ...]."""
    parts = packed.split([group.tokens for group in layout])
    return [part.unflatten(0, tuple(group)) for part, group in zip(parts, layout, strict=True)]
