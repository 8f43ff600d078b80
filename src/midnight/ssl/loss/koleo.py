"""KoLeo: the Kozachenko–Leonenko estimate of entropy as a regularizer [Sablayrolles et al. 2019, DINOv2]."""

import torch
import torch.nn.functional as F
from torch import Tensor

from midnight.ssl import distributed

EPS = 1e-8


def koleo_loss(embeddings: Tensor, gather: bool = False) -> Tensor:
    """−mean_i log ‖x_i − x_nearest(i)‖ of ℓ2-normalised embeddings.

    Args:
        embeddings: [N, D], of one global crop per image.
        gather: whether neighbours are sought among the embeddings of all processes.

    Returns:
        float32 scalar; 0 for a single embedding.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        rows = F.normalize(embeddings.float(), dim=-1, eps=EPS)
        others = distributed.gather(rows) if gather else rows
        if others.shape[0] < 2:
            return rows.sum() * 0.0
        first = distributed.rank() * len(rows) if gather else 0
        itself = torch.arange(first, first + len(rows), device=rows.device)
        with torch.no_grad():
            # Not by assignment to places: torch would wait for the GPU to bring it the value.
            left_out = itself[:, None] == torch.arange(len(others), device=rows.device)
            nearest = (rows @ others.T).masked_fill(left_out, -2.0).argmax(dim=1)
        return -torch.log(F.pairwise_distance(rows, others[nearest], p=2, eps=EPS) + EPS).mean()
