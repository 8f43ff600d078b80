"""DINO: every crop's CLS token predicts the teacher's view of the other crops."""

import torch
from torch import Tensor

from midnight.ssl.loss.cross_entropy import Pairing, cross_entropy


def dino_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy over all pairs of a student's crop and a teacher's global crop that are not the same crop.

    Cross-entropy is linear in its target, so each crop of the student is held once against the mean of its targets.

    Args:
        student: logits [V, B, K]; the first T of the V crops are the teacher's global crops, in the same order.
        teacher: targets [T, B, K], float32.
        temperature: of the student.

    Returns:
        float32 scalar.

    Raises:
        ValueError: there is no such pair.
    """
    crops, batch, views = *student.shape[:2], len(teacher)
    skipped = 1 if views == 1 else 0  # the only global crop has no other one to predict
    if crops == skipped:
        raise ValueError(f"DINO needs two crops or more, got {crops} and {views} of the teacher")
    others = [[t for t in range(views) if t != s] for s in range(skipped, views)]
    targets = [*others, list(range(views))]  # one list per global crop, the last for all local crops
    means = torch.stack([torch.stack([teacher[t] for t in each]).mean(dim=0) for each in targets])
    blocks = [min(number, len(others)) for number in range(crops - skipped)]
    pairings = [Pairing(number * batch, block * batch, batch) for number, block in enumerate(blocks)]
    terms = cross_entropy(student[skipped:].flatten(0, 1), means.flatten(0, 1), temperature, pairings)
    weights = [len(targets[block]) for block in blocks]
    means_of_crops = terms.view(-1, batch).mean(dim=1)
    return torch.stack([w * mean for w, mean in zip(weights, means_of_crops, strict=True)]).sum() / sum(weights)
