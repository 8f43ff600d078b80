"""Training steps in each way that they can run, on random crops."""

import contextlib
import dataclasses
import gc
import itertools
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from midnight.config import Recipe, build
from midnight.ssl import optimizer, runtime, step
from midnight.ssl.budget import flops_per_tile
from midnight.ssl.budget.shape import measure
from midnight.ssl.loss.sinkhorn import sinkhorn
from midnight.ssl.masking import step_masks
from midnight.ssl.model.float8 import use_float8
from midnight.ssl.model.network import Network, build_student, teacher_of
from midnight.ssl.schedules import values_at
from midnight.ssl.update import Update, update_of

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


class Stepper:
    """Student, teacher and optimizer, and one micro-step after the other."""

    def __init__(self, model: Model, way: Way, device: torch.device, init_on: torch.device | None = None) -> None:
        self.recipe, self.way, self.device = recipe(model, way), way, device
        with torch.device(init_on or device):
            student = build_student(self.recipe)
        if way.precision == "float8":
            use_float8(student.backbone.vit.blocks, device)
        self.student: Network = student.to(device).train()
        self.teacher = teacher_of(self.student).to(device)
        for network in (self.student, self.teacher):
            network.backbone.fuse &= way.blocks == "fused"
        self.optimizer = optimizer.build_optimizer(self.student, self.recipe.optimizer)
        self.update = update_of(self.student, self.teacher, self.optimizer, self.recipe.optimizer)
        if way.update == "torch":
            self.update = Update(self.student, self.teacher, self.optimizer, self.recipe.optimizer)
        self.crops = random_crops(model.batch, pinned=device.type == "cuda")
        self.number = 0
        self.dispatched: list[float] = []
        self.masks: Tensor | None = None

    def losses(self, number: int = 0) -> step.Losses:
        """Forward and backward of one micro-step."""
        runtime.seed_step(0, number)
        loss = self.recipe.loss
        masks = self._masks(number) if self.masks is None else self.masks
        batch = step.prepare(self.crops, masks, self.recipe.crops, self.device)
        dense = mock.patch.object(step, "scaled_sinkhorn", sinkhorn)
        with dense if self.way.targets == "dense" else contextlib.nullcontext():
            with runtime.autocast(self.device, self.recipe.training):
                found = step.compute_losses(self.student, self.teacher, batch, 0.07, loss)
            found.total.backward()
        self.masks = self._masks(number + 1)  # while the GPU is still at work, as the trainer does
        return found

    def _masks(self, number: int) -> Tensor:
        loss, crops = self.recipe.loss, 2 * len(self.crops["global_crops"])
        return torch.from_numpy(step_masks(0, 0, number, crops, (16, 16), loss.mask_probability, loss.mask_ratio))

    def step(self) -> tuple[step.Losses, Tensor]:
        """A whole step: losses, clipping, AdamW, teacher."""
        start = time.perf_counter()
        found = self.losses(self.number)
        values = values_at(self.recipe, 1000, 1)
        norm = self.update.clip(values)
        self.dispatched.append(time.perf_counter() - start)
        norm.item()
        self.update.apply(values)
        self.optimizer.zero_grad(set_to_none=True)
        self.number += 1
        return found, norm

    def tflop_per_image(self) -> float:
        """Arithmetic of the matrix products and attention, as `midnight config show` counts it."""
        return flops_per_tile(self.recipe, measure(self.recipe)).total / 1e12


def random_crops(batch: int, pinned: bool) -> dict[str, Tensor]:
    """A loader's batch of noise."""
    generator = torch.Generator().manual_seed(0)

    def noise(views: int, side: int) -> Tensor:
        crops = torch.randint(0, 256, (batch, views, 3, side, side), dtype=torch.uint8, generator=generator)
        return crops.pin_memory() if pinned else crops

    return {"global_crops": noise(2, 224), "local_crops": noise(8, 98)}


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def stepper(*arguments: Any, **others: Any) -> Iterator[Stepper]:
    """A stepper whose memory is given back."""
    gc.collect()  # of one before
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield Stepper(*arguments, **others)


def timed(stepping: Stepper, repetitions: int, warm: int = 3) -> dict[str, Any]:
    """Median seconds of a step, and of its dispatch by the CPU; images per second; memory.

    As in the trainer, the device is waited for once per step, for the gradients' norm.
    """
    start = time.perf_counter()
    for _ in range(warm):
        stepping.step()
    synchronise(stepping.device)
    row: dict[str, Any] = {"warm_s": round(time.perf_counter() - start, 1)}
    clocks = [time.perf_counter()]
    for _ in range(repetitions):
        stepping.step()
        clocks.append(time.perf_counter())
    synchronise(stepping.device)
    whole = (time.perf_counter() - clocks[0]) / repetitions
    steps = [after - before for before, after in itertools.pairwise(clocks)]
    rate = len(stepping.crops["global_crops"]) / whole
    row |= {"ms": round(whole * 1e3, 1), "dispatch_ms": round(statistics.median(stepping.dispatched) * 1e3, 1)}
    row |= {"images_per_s": round(rate, 1), "spread": round((max(steps) - min(steps)) / whole, 3)}
    row["tflops"] = round(rate * stepping.tflop_per_image())
    if stepping.device.type == "cuda":
        row["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 1)
    return row


def measured(model: Model, way: Way, device: torch.device, repetitions: int) -> dict[str, Any]:
    """`timed`, of a stepper that is gone afterwards: its memory must not count as the next one's."""
    with stepper(model, way, device) as stepping:
        return timed(stepping, repetitions)


def gradients_norm(network: Network) -> float:
    """Of all gradients together."""
    norms = [p.grad.float().norm() for p in network.parameters() if p.grad is not None]
    return float(torch.stack(norms).norm())


def differences(ours: Mapping[str, float], expected: Mapping[str, float]) -> dict[str, float]:
    """Relative, of each value."""
    return {name: round(abs(ours[name] - value) / max(1e-9, abs(value)), 6) for name, value in expected.items()}
