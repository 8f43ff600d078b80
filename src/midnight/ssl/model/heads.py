"""Projection heads: from tokens to scores of prototypes."""

import itertools
import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from midnight.config import Heads, choose
from midnight.ssl.kernels import has_triton
from midnight.ssl.kernels.directions import scaled_directions, scaled_directions_backward


class _Directions(torch.autograd.Function):
    """The prototypes as the product takes them, in one pass over them each way."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, lengths: Tensor | None, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(rows, lengths)
        return scaled_directions(rows, lengths, dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, lengths = ctx.saved_tensors
        below, of_lengths = scaled_directions_backward(grad, rows, lengths)
        return below, None if lengths is None else of_lengths, None


class DINOHead(nn.Module):
    """MLP with GELU, bottleneck, ℓ2 norm, then scores of weight-normalised prototypes [DINO, DINOv2].

    A logit is the cosine with a prototype times that prototype's length: trained from 1 on, as DINOv2's `weight_g` is,
    or fixed at 1.
    """

    def __init__(self, dim: int, heads: Heads, bottleneck: int | None = None) -> None:
        """Random init.

        Args:
            dim: width of the tokens.
            heads: the recipe's.
            bottleneck: width before the prototypes, if not `heads.bottleneck`.
        """
        super().__init__()
        narrow = bottleneck or heads.bottleneck
        trained = choose(heads.prototype_length, {"trained": True, "fixed": False}, "heads.prototype_length")
        widths = [dim, *[heads.hidden] * (heads.layers - 1), narrow]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.GELU()]
        self.mlp = nn.Sequential(*layers[:-1])
        self.prototypes = nn.Parameter(torch.empty(heads.prototypes, narrow))
        self.prototype_lengths = nn.Parameter(torch.ones(heads.prototypes, 1)) if trained else None
        self.reset()

    def reset(self) -> None:
        """Random init: of the MLP a truncated normal of σ = 0.02, biases 0; of the prototypes nn.Linear's [DINOv2].

        The length of a prototype's direction, .58, matters though it drops out: the shorter, the faster it turns.
        """
        nn.init.kaiming_uniform_(self.prototypes, a=math.sqrt(5))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [N, K] of tokens [N, D]."""
        projected = self.mlp(tokens)
        kind = projected.device.type
        if torch.is_autocast_enabled(kind) and has_triton(projected.device):
            dtype = torch.get_autocast_dtype(kind)
            directions = cast(Tensor, _Directions.apply(self.prototypes, self.prototype_lengths, dtype))
            return F.linear(F.normalize(projected.float(), dim=-1).to(dtype), directions)
        eps = 1e-6 if projected.dtype == torch.float16 else 1e-12
        prototypes = F.normalize(self.prototypes, dim=-1)
        if self.prototype_lengths is not None:
            prototypes = prototypes * self.prototype_lengths
        return F.linear(F.normalize(projected, dim=-1, eps=eps), prototypes)
