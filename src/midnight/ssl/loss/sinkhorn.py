"""Sinkhorn–Knopp: teacher targets that use all prototypes equally [SwAV, DINOv2]."""

import torch
from torch import Tensor

from midnight.ssl import distributed
from midnight.ssl.kernels.prototypes import scaled_targets
from midnight.ssl.kernels.targets import ScaledTargets


@torch.no_grad()
def sinkhorn(logits: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """Targets float32 [N, K] whose rows sum to 1 and whose columns, over all processes, have nearly equal sums.

    Processes may bring different N, also 0.

    Args:
        logits: [N, K] of the teacher.
        temperature: divides the logits.
        iterations: rounds of column, then row normalisation.
    """
    # Everything happens in one float32 copy: [hidden patches, prototypes] is the largest tensor of a step.
    targets = logits.to(torch.float32, copy=True).div_(temperature)
    # A shift of all logits leaves the result as it is and keeps exp within float32.
    largest = targets.max() if targets.numel() else targets.new_full((), -torch.inf)
    targets.sub_(distributed.all_max(largest)).exp_()
    tiny = torch.finfo(targets.dtype).tiny
    # Columns of sum 1 instead of 1/K, rows of sum 1 instead of 1/N: the next round takes such factors out again.
    for _ in range(iterations):
        targets /= distributed.all_sum(targets.sum(dim=0, keepdim=True)).clamp_min(tiny)
        targets /= targets.sum(dim=1, keepdim=True).clamp_min(tiny)
    return targets


@torch.no_grad()
def scaled_sinkhorn(logits: Tensor, temperature: float, iterations: int = 3) -> ScaledTargets:
    """The same targets as `sinkhorn` gives, kept as scalings of the logits' rows and columns."""
    largest = logits.max().float() / temperature if logits.numel() else logits.new_full((), -torch.inf).float()
    return scaled_targets(logits, temperature, iterations, distributed.all_sum, distributed.all_max(largest))
