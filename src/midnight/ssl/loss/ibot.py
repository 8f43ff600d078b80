"""iBOT: hidden patches predict what the teacher says of them."""

import torch
from torch import Tensor

from midnight.ssl.loss.dino import cross_entropy


def mask_weights(masks: Tensor) -> Tensor:
    """Weight of each hidden patch, float32 [M]: 1 / number of hidden patches in its crop.

    Args:
        masks: bool [crops, N], with M patches hidden in all.
    """
    counts = masks.sum(dim=1, keepdim=True).clamp_min(1)
    return (1.0 / counts.float()).expand(masks.shape)[masks]


def ibot_loss(student: Tensor, teacher: Tensor, masks: Tensor, temperature: float) -> Tensor:
    """Cross-entropy, mean over a crop's hidden patches, then over all crops; one without a mask counts 0 [DINOv2].

    Args:
        student: logits [M, K] of the hidden patches, in the order of `masks`.
        teacher: targets [M, K], float32.
        masks: bool [crops, N].
        temperature: of the student.

    Returns:
        float32 scalar.
    """
    terms = cross_entropy(student, teacher, temperature) * mask_weights(masks)
    return torch.sum(terms) / masks.shape[0]
