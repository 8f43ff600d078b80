"""DINO: every crop's CLS token predicts the teacher's view of the other crops."""

import torch
from torch import Tensor


def cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """−Σ t · log softmax(s / temperature) along the last dimension, as lse − ⟨t, s⟩: no log-softmax is stored.

    Args:
        student: logits [..., K].
        teacher: probabilities [..., K] that sum to 1, float32.
        temperature: of the student.

    Returns:
        float32 [...].
    """
    scaled = student.float() / temperature
    return torch.logsumexp(scaled, dim=-1) - (teacher * scaled).sum(dim=-1)


def dino_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy over all pairs of a student's crop and a teacher's global crop that are not the same crop.

    Args:
        student: logits [V, B, K]; the first T of the V crops are the teacher's global crops, in the same order.
        teacher: targets [T, B, K], float32.
        temperature: of the student.

    Returns:
        float32 scalar.
    """
    views = teacher.shape[0]
    terms = [
        cross_entropy(logits, targets, temperature).mean()
        for s, logits in enumerate(student)
        for t, targets in enumerate(teacher)
        if s != t
    ]
    if not terms:
        raise ValueError(f"DINO needs two crops or more, got {student.shape[0]} and {views} of the teacher")
    return torch.stack(terms).mean()
