"""What is measured while training, and the file that keeps it."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from midnight.atomic import write_text
from midnight.errors import MidnightError

METRICS = "metrics.jsonl"
"""Name of the file of a run's curves."""


@torch.no_grad()
def mean_cosine(embeddings: Tensor) -> Tensor:
    """Mean cosine between different rows of [N, D], float32 scalar: 1 is collapse; NaN for one row."""
    rows = F.normalize(embeddings.float(), dim=-1)
    count = len(rows)
    return (rows.sum(dim=0).square().sum() - count) / (count * (count - 1)) if count > 1 else rows.new_tensor(math.nan)


@torch.no_grad()
def entropy(probabilities: Tensor) -> Tensor:
    """Mean entropy of the rows of [..., K], nats, float32 scalar."""
    return -torch.xlogy(probabilities, probabilities).sum(dim=-1).mean()


@torch.no_grad()
def prototype_entropy(logits: Tensor, temperature: float) -> Tensor:
    """Entropy of the mean assignment of logits [..., K], nats: log K when all prototypes are used, 0 for one."""
    mean = torch.softmax(logits.float() / temperature, dim=-1).flatten(0, -2).mean(dim=0)
    return entropy(mean)


@torch.no_grad()
def effective_rank(embeddings: Tensor) -> Tensor:
    """RankMe of embeddings [N, D], float64 scalar: exp of the entropy of the singular values, normalised to sum 1.

    1 when all rows are multiples of one another, min(N, D) when they fill the space evenly; NaN for zeros and for
    what is not finite. As in the source, rows are not centred (Garrido et al. 2023, arXiv 2210.02885, equation 1,
    without its eps).
    """
    rows = embeddings.double()
    if not torch.isfinite(rows).all():  # on which LAPACK would give up with an error
        return rows.new_tensor(math.nan)
    # Singular values by the smaller Gram matrix, several times as fast; what double precision loses has no weight.
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    return entropy(values / values.sum()).exp()


class MetricsFile:
    """`metrics.jsonl`: one JSON object per logged step, each step once also after a resume."""

    def __init__(self, path: Path, last_step: int) -> None:
        """Keep the lines up to `last_step`, none for 0; later ones, which a resumed run writes again, are dropped."""
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if last_step and path.exists() else []
        kept = [line for line in lines if _step(line) <= last_step]
        write_text(path, "".join(f"{line}\n" for line in kept))

    def append(self, values: Mapping[str, Any]) -> None:
        """Add a line; numbers that JSON has no form for become null.

        Raises:
            MidnightError: the disk is full or the file can't be written.
        """
        line = json.dumps({name: _finite(value) for name, value in values.items()}, allow_nan=False)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise MidnightError(f"{self.path}: can't be written: {error.strerror or error}") from error


def _step(line: str) -> float:
    """The step of a line; infinite for one that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
