"""iBOT: hidden patches predict what the teacher says of them."""

import torch
from torch import Tensor

from midnight.ssl.kernels.targets import ScaledTargets
from midnight.ssl.loss.cross_entropy import cross_entropy


def hidden_rows(masks: Tensor) -> Tensor:
    """Where the hidden patches lie among all patches: int64 [M], in order, of masks bool [crops, N].

    On a GPU this waits for the device, as their number is not known; so it is best called before the masks go there.
    """
    return masks.flatten().nonzero().squeeze(1)


def mask_weights(masks: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Weight of each hidden patch, float32 [M]: 1 / number of hidden patches in its crop.

    Args:
        masks: bool [crops, N], with M patches hidden in all.
        hidden: `hidden_rows(masks)`, if known.
    """
    rows = hidden_rows(masks) if hidden is None else hidden
    counts = masks.sum(dim=1).clamp_min(1)
    return (1.0 / counts.float())[rows // masks.shape[1]]


def ibot_loss(
    student: Tensor,
    teacher: Tensor | ScaledTargets,
    masks: Tensor,
    temperature: float,
    hidden: Tensor | None = None,
) -> Tensor:
    """Cross-entropy, mean over a crop's hidden patches, then over all crops; one without a mask counts 0 [DINOv2].

    Args:
        student: logits [M, K] of the hidden patches, in the order of `masks`.
        teacher: targets [M, K], float32 or as scalings.
        masks: bool [crops, N].
        temperature: of the student.
        hidden: `hidden_rows(masks)`, if known.

    Returns:
        float32 scalar.
    """
    terms = cross_entropy(student, teacher, temperature) * mask_weights(masks, hidden)
    return torch.sum(terms) / masks.shape[0]
