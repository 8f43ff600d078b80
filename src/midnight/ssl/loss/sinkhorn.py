"""Sinkhorn–Knopp: teacher targets that use all prototypes equally [SwAV, DINOv2]."""

import torch
from torch import Tensor

from midnight.ssl import distributed


@torch.no_grad()
def sinkhorn(logits: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """Targets float32 [N, K] whose rows sum to 1 and whose columns, over all processes, have nearly equal sums.

    Processes may bring different N, also 0.

    Args:
        logits: [N, K] of the teacher.
        temperature: divides the logits.
        iterations: rounds of column, then row normalisation.
    """
    scaled = logits.float() / temperature
    # A shift of all logits leaves the result as it is and keeps exp within float32.
    largest = scaled.max() if scaled.numel() else scaled.new_tensor(-torch.inf)
    targets = torch.exp(scaled - distributed.all_max(largest.clone()))
    rows = distributed.all_sum(targets.new_tensor(float(targets.shape[0])))
    targets /= distributed.all_sum(targets.sum())
    for _ in range(iterations):
        targets /= distributed.all_sum(targets.sum(dim=0, keepdim=True)).clamp_min(torch.finfo(targets.dtype).tiny)
        targets /= targets.shape[1]
        targets /= targets.sum(dim=1, keepdim=True).clamp_min(torch.finfo(targets.dtype).tiny)
        targets /= rows
    return targets * rows
