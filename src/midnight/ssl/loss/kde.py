"""The KDE regularizer: spreads embeddings over the sphere [Wang & Isola 2020, Virchow2]."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from midnight.ssl import distributed


def kde_loss(embeddings: Tensor, kappa: float, gather: bool = False) -> Tensor:
    """mean_i log mean_{j≠i} exp(κ · x_i·x_j) of ℓ2-normalised embeddings; MINIMISED, it drives them apart.

    It is the log density of a von Mises–Fisher kernel estimate at each embedding, left out itself: low where there
    are no neighbours. Its minimum is below 0, its maximum κ where all embeddings are one.

    Args:
        embeddings: [N, D], of one global crop per image.
        kappa: concentration of the kernel.
        gather: whether j runs over the embeddings of all processes (i always over this one's).

    Returns:
        float32 scalar; 0 for a single embedding, which has no neighbours.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        rows = F.normalize(embeddings.float(), dim=-1)
        others = distributed.gather(rows) if gather else rows
        first = distributed.rank() * len(rows) if gather else 0
        count = others.shape[0] - 1
        if count < 1:
            return rows.sum() * 0.0
        itself = torch.arange(first, first + len(rows), device=rows.device)
        similarity = kappa * rows @ others.T
        # Not by assignment to places: torch would wait for the GPU to bring it the value.
        left_out = itself[:, None] == torch.arange(len(others), device=rows.device)
        return (torch.logsumexp(similarity.masked_fill(left_out, -torch.inf), dim=1) - math.log(count)).mean()
