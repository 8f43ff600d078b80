"""Projection heads: from tokens to scores of prototypes."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from midnight.config import Heads


class DINOHead(nn.Module):
    """MLP with GELU, bottleneck, ℓ2 norm, then cosines with unit-length prototypes [DINO, DINOv2].

    The prototypes are weight-normalised with their length fixed at 1, so a logit is a cosine in [−1, 1].
    """

    def __init__(self, dim: int, heads: Heads) -> None:
        super().__init__()
        widths = [dim, *[heads.hidden] * (heads.layers - 1), heads.bottleneck]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.GELU()]
        self.mlp = nn.Sequential(*layers[:-1])
        self.prototypes = nn.Parameter(torch.empty(heads.prototypes, heads.bottleneck))
        self.reset()

    def reset(self) -> None:
        """Random init: truncated normal of σ = 0.02, biases 0."""
        nn.init.trunc_normal_(self.prototypes, std=0.02)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [N, K] of tokens [N, D]."""
        projected = self.mlp(tokens)
        eps = 1e-6 if projected.dtype == torch.float16 else 1e-12
        return F.linear(F.normalize(projected, dim=-1, eps=eps), F.normalize(self.prototypes, dim=-1))
