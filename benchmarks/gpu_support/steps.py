"""Training steps in each way that they can run, on random crops."""

import contextlib
import dataclasses
import gc
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import torch

from midnight.config import Recipe, build
from midnight.ssl import bench, step
from midnight.ssl.loss.sinkhorn import sinkhorn
from midnight.ssl.model.network import Network
from midnight.ssl.update import Update

SMALL = {"embed_dim": 96, "num_heads": 3, "depth": 3}
"""What makes any architecture one that a CPU steps through in seconds."""


@dataclasses.dataclass(frozen=True)
class Way:
    """How a step runs: blocks fused, compiled or plain; activation checkpointing; precision.

    `targets`: `scaled`, or `dense` as on the CPU; `update`: `one pass`, or `torch`'s functions.
    """

    blocks: str = "fused"
    checkpointing: bool = False
    precision: str = "bfloat16"
    targets: str = "scaled"
    update: str = "one pass"

    def __str__(self) -> str:
        parts = [
            self.blocks,
            self.precision,
            "checkpointing" if self.checkpointing else "",
            self.targets,
            self.update,
        ]
        return ", ".join(part for part in parts if part not in ("", "scaled", "bfloat16", "one pass"))


@dataclasses.dataclass(frozen=True)
class Model:
    """What is trained: timm's architecture with 2 × 224 px and 8 × 98 px per tile; batch per GPU."""

    arch: str = "vit_giant_patch14_reg4_dinov2"
    batch: int = 48
    drop_path: float = 0.4
    small: bool = False


def recipe(model: Model, way: Way) -> Recipe:
    """Of a run like OpenMidnight's on one GPU."""
    values = {
        "name": "gpu",
        "backbone": {
            "arch": model.arch,
            "drop_path": model.drop_path,
            "layer_scale": 1.0,
            "kwargs": SMALL if model.small else {},
        },
        "heads": {"prototypes": 1024 if model.small else 131072, "bottleneck": 384},
        "optimizer": {"freeze_last_layer": 0.0},
        "training": {
            "iterations": 10_000,
            "gpus": 1,
            "batch_size": model.batch,
            "accumulation": 1,
            "compile": way.blocks == "compiled",
            "activation_checkpointing": way.checkpointing,
            "precision": way.precision,
        },
    }
    return build(Recipe, values, "gpu")


class Stepper(bench.Stepper):
    """Of a model, in one of the ways."""

    def __init__(self, model: Model, way: Way, device: torch.device, init_on: torch.device | None = None) -> None:
        super().__init__(recipe(model, way), device, init_on)
        self.way = way
        for network in (self.student, self.teacher):
            network.backbone.fuse &= way.blocks == "fused"
        if way.update == "torch":
            self.update = Update(self.student, self.teacher, self.optimizer, self.recipe.optimizer)

    def losses(self) -> step.Losses:
        """See `bench.Stepper.losses`."""
        dense = mock.patch.object(step, "scaled_sinkhorn", sinkhorn)
        with dense if self.way.targets == "dense" else contextlib.nullcontext():
            return super().losses()


@contextlib.contextmanager
def stepper(*arguments: Any, **others: Any) -> Iterator[Stepper]:
    """A stepper whose memory is given back."""
    gc.collect()  # of one before
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield Stepper(*arguments, **others)


def measured(model: Model, way: Way, device: torch.device, repetitions: int) -> dict[str, Any]:
    """`timed`, of a stepper that is gone afterwards: its memory must not count as the next one's."""
    with stepper(model, way, device) as stepping:
        return bench.timed(stepping, repetitions)


def gradients_norm(network: Network) -> float:
    """Of all gradients together."""
    norms = [p.grad.float().norm() for p in network.parameters() if p.grad is not None]
    return float(torch.stack(norms).norm())


def differences(ours: Mapping[str, float], expected: Mapping[str, float]) -> dict[str, float]:
    """Relative, of each value."""
    return {name: round(abs(ours[name] - value) / max(1e-9, abs(value)), 6) for name, value in expected.items()}
