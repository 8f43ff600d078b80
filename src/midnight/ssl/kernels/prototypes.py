"""Targets and cross-entropy over many prototypes, without a float32 copy of the logits.

[hidden patches, prototypes] is the largest tensor of a step. Sinkhorn–Knopp only scales the rows and columns of
exp(logits / temperature), so the scalings say it all, and a target is computed where it is needed.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from midnight.ssl.kernels.targets import AnyTargets, ScaledTargets


def scaled_targets(
    logits: Tensor, temperature: float, iterations: int, all_sum: Callable[[Tensor], Tensor], shift: Tensor
) -> ScaledTargets:
    """Sinkhorn–Knopp as scalings: columns to sum 1, then rows, so many times.

    Args:
        logits: [N, K] of the teacher.
        temperature: divides the logits.
        iterations: rounds, 1 or more.
        all_sum: of the columns' sums, over all processes.
        shift: float32 [], the largest logit / temperature of all processes.
    """
    tiny = torch.finfo(torch.float32).tiny
    rows = torch.ones(len(logits), device=logits.device)
    columns = torch.ones(logits.shape[1], device=logits.device)
    for _ in range(iterations):
        columns = (
            all_sum(_sums(ScaledTargets(logits, rows, columns, shift, temperature), 0)).clamp_min(tiny).reciprocal()
        )
        rows = _sums(ScaledTargets(logits, rows, columns, shift, temperature), 1).clamp_min(tiny).reciprocal()
    return ScaledTargets(logits, rows, columns, shift, temperature)


def _sums(targets: ScaledTargets, dim: int) -> Tensor:
    """Σ over rows (0) of rows · exp, [K], or over columns (1) of columns · exp, [N]."""
    if targets.logits.is_cuda:
        from midnight.ssl.kernels.on_gpu import prototypes

        return prototypes.sums(targets, dim)
    exps = (targets.logits.float() / targets.temperature - targets.shift).exp_()
    return targets.rows @ exps if dim == 0 else exps @ targets.columns


def cross_entropy_terms(student: Tensor, targets: AnyTargets, temperature: float) -> tuple[Tensor, Tensor]:
    """lse(s / temperature) − ⟨t, s / temperature⟩ row by row, and the lse alone: float32 [N] each."""
    if student.is_cuda:
        from midnight.ssl.kernels.on_gpu import prototypes

        return prototypes.cross_entropy_terms(student, targets, temperature)
    scaled = student.float() / temperature
    normalisers = scaled.logsumexp(dim=1)
    return normalisers - (scaled * targets.dense()).sum(dim=1), normalisers


def cross_entropy_backward(
    factors: Tensor, student: Tensor, normalisers: Tensor, targets: AnyTargets, temperature: float
) -> Tensor:
    """factors · (softmax(s / temperature) − t) in the student's type; factors float32 [N] hold 1 / temperature."""
    if student.is_cuda:
        from midnight.ssl.kernels.on_gpu import prototypes

        return prototypes.cross_entropy_backward(factors, student, normalisers, targets, temperature)
    softmax = (student.float() / temperature - normalisers[:, None]).exp_()
    return (softmax - targets.dense()).mul_(factors[:, None]).to(student.dtype)
