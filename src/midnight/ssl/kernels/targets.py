"""What the cross-entropy over prototypes is taken with, made where it is needed."""

from typing import NamedTuple

from torch import Tensor


class MatchedTargets(NamedTuple):
    """Targets float32 [M, K], and which row of them each row of the student has: int32 [N]."""

    values: Tensor
    rows: Tensor

    def dense(self) -> Tensor:
        """The targets themselves, float32 [N, K]."""
        return self.values[self.rows]


class ScaledTargets(NamedTuple):
    """Targets tᵢⱼ = rowsᵢ · columnsⱼ · exp(logitsᵢⱼ / temperature − shift), of logits [N, K] in whatever precision.

    rows [N], columns [K] and shift [] are float32, on the logits' device.
    """

    logits: Tensor
    rows: Tensor
    columns: Tensor
    shift: Tensor
    temperature: float

    def dense(self) -> Tensor:
        """The targets themselves, float32 [N, K]."""
        exponents = self.logits.float() / self.temperature - self.shift
        return exponents.exp_().mul_(self.rows[:, None]).mul_(self.columns)


AnyTargets = ScaledTargets | MatchedTargets
