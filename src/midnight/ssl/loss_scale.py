"""The loss's scale in float16, whose smallest numbers many gradients would fall below.

As torch's GradScaler: powers of 2 from 2¹⁶ on, halved when gradients overflow, doubled after 2000 good steps. That
class decides for each process by itself, and where weights are sharded processes would decide differently; here the
norm decides, on which all processes agree. In other precisions the scale is 1 and nothing happens.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from midnight.config import choose
from midnight.ssl.model.network import Network
from midnight.ssl.sharding import local_part

log = logging.getLogger(__name__)
FIRST, GROWTH_INTERVAL, LARGEST = 2.0**16, 2000, 2.0**24
SCALED = {"float32": False, "bfloat16": False, "float16": True, "float8": False}


class LossScale:
    """A factor of the loss, taken out of the gradients again before they are clipped."""

    def __init__(self, precision: str) -> None:
        self.active = choose(precision, SCALED, "training.precision")
        self.value = FIRST if self.active else 1.0
        self.good = 0
        """Optimizer steps since the scale last changed."""

    def up(self, loss: Tensor) -> Tensor:
        """The scaled loss."""
        return loss * self.value if self.active else loss

    def down(self, student: Network) -> None:
        """Divide all gradients by the scale, in place."""
        if self.active:
            gradients = [local_part(value.grad) for value in student.parameters() if value.grad is not None]
            torch._foreach_mul_(gradients, 1 / self.value)

    def step_made(self) -> None:
        """After an optimizer step: grow, if it is time."""
        self.good += 1
        if self.active and self.good >= GROWTH_INTERVAL and self.value < LARGEST:
            self.value, self.good = 2 * self.value, 0

    def overflow(self) -> bool:
        """Halve the scale after gradients that were not finite; False if that can't have been the reason."""
        if self.value <= 1:
            return False
        self.value, self.good = self.value / 2, 0
        log.info("gradients beyond float16: the loss's scale is %g from now on", self.value)
        return True

    def state(self) -> dict[str, Any]:
        """For a checkpoint; empty in other precisions."""
        return {"loss_scale": [self.value, self.good]} if self.active else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        if self.active and "loss_scale" in state:
            self.value, self.good = state["loss_scale"]
