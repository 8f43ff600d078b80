"""Softmax with a moving centre: the teacher's targets of DINO, and DINOv2's alternative to Sinkhorn–Knopp.

A centre follows the mean of the teacher's logits. DINOv2 moves it by each batch, after that batch's targets are made;
here once per optimizer step, by the mean over its micro-steps, like all that a checkpoint has. Without accumulation
both are the same.
"""

import torch
from torch import Tensor, nn

from midnight.ssl import distributed


class Centre(nn.Module):
    """A moving centre float32 [K] of the logits, the same on all processes."""

    centre: Tensor

    def __init__(self, prototypes: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("centre", torch.zeros(prototypes))
        self._seen: list[Tensor] = []

    @torch.no_grad()
    def targets(self, logits: Tensor, temperature: float) -> Tensor:
        """Targets float32 [N, K] whose rows sum to 1; the logits are noted for the next move.

        Processes may bring different N, also 0: the mean is that of the processes' means [DINOv2].

        Args:
            logits: [N, K] of the teacher.
            temperature: divides the logits less the centre.
        """
        logits = logits.float()
        count = logits.new_tensor([float(len(logits) > 0)])
        self._seen.append(torch.cat([logits.sum(dim=0) / max(1, len(logits)), count]))
        return ((logits - self.centre) / temperature).softmax(dim=-1)

    @torch.no_grad()
    def move(self) -> None:
        """centre ← momentum · centre + (1 − momentum) · mean of all logits since the last call; all processes call."""
        seen = distributed.all_sum(torch.stack(self._seen).sum(dim=0))
        mean = seen[:-1] / seen[-1].clamp_min(1.0)
        # nowhere a hidden patch: the centre stays
        self.centre.lerp_(torch.where(seen[-1] > 0, mean, self.centre), 1 - self.momentum)
        self.forget()

    def forget(self) -> None:
        """Move by nothing: the optimizer step was left out."""
        self._seen.clear()


class Centres(nn.Module):
    """Of the CLS tokens' logits and of the hidden patches': a part of the teacher."""

    def __init__(self, prototypes: int, momentum: float) -> None:
        super().__init__()
        self.dino, self.ibot = Centre(prototypes, momentum), Centre(prototypes, momentum)

    def move(self) -> None:
        """See `Centre.move`."""
        self.dino.move()
        self.ibot.move()

    def forget(self) -> None:
        """See `Centre.forget`."""
        self.dino.forget()
        self.ibot.forget()
