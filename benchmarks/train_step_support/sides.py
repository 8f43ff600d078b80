"""A training step of ours and of the plain implementation, on the same model, weights, crops and masks."""

import abc
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from midnight.config import Recipe, build
from midnight.ssl import runtime
from midnight.ssl.bench import random_crops
from midnight.ssl.masking import step_masks
from midnight.ssl.model.network import build_student, teacher_of
from midnight.ssl.optimizer import apply_schedule, build_optimizer, clip_gradients, parameter_groups
from midnight.ssl.schedules import values_at
from midnight.ssl.step import Batch, compute_losses, prepare
from midnight.ssl.update import update_of

from . import plain

STEP = 1000
"""The step whose schedule both sides follow: past the frozen prototypes."""


@dataclass(frozen=True)
class Case:
    """A model and its batch; `goals` of ours by name of the figure, where the project has set some."""

    name: str
    arch: str
    batch: int
    drop_path: float
    prototypes: int
    kwargs: dict[str, Any] = field(default_factory=dict)
    hidden: int = 2048
    global_size: int = 224
    local_size: int = 98
    n_local: int = 8
    goals: dict[str, float] = field(default_factory=dict)

    def recipe(self) -> Recipe:
        """As a recipe of ours, from random weights."""
        values = {
            "name": self.name,
            "crops": {"global_size": self.global_size, "local_size": self.local_size, "n_local": self.n_local},
            "backbone": {
                "arch": self.arch,
                "kwargs": self.kwargs,
                "drop_path": self.drop_path,
                "layer_scale": 1.0,
                "pos_interpolation": "antialias",  # as timm, which the plain side is
            },
            "heads": {"prototypes": self.prototypes, "hidden": self.hidden},
            "optimizer": {"freeze_last_layer": 0.0},
            "training": {"iterations": 10 * STEP, "gpus": 1, "batch_size": self.batch, "accumulation": 1},
        }
        return build(Recipe, values, "benchmark")


def random_batch(recipe: Recipe, patch: int, device: torch.device) -> Batch:
    """Noise for crops, and masks as in training."""
    side, count = recipe.crops.global_size // patch, 2 * recipe.training.batch_size
    masks = step_masks(0, 0, 0, count, (side, side), recipe.loss.mask_probability, recipe.loss.mask_ratio)
    return prepare(random_crops(recipe, pinned=False), torch.from_numpy(masks), recipe.crops, device)


class Side(abc.ABC):
    """Student, teacher, optimizer and one batch that every step sees again."""

    student: Any
    teacher: Any
    optimizer: torch.optim.Optimizer

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self.device, self.recipe = case, device, case.recipe()
        self.values = values_at(self.recipe, STEP, 1)
        self.make()
        self.batch = random_batch(self.recipe, self.student.backbone.vit.patch_embed.patch_size[0], device)

    @abc.abstractmethod
    def make(self) -> None:
        """Student, teacher and optimizer on the device."""

    @abc.abstractmethod
    def loss(self) -> Tensor:
        """The objective of the batch."""

    @abc.abstractmethod
    def update(self) -> None:
        """Clip the gradients, step, update the teacher."""

    def step(self) -> int:
        """Forward, backward, clipping, optimizer, teacher; waits for the device. Returns the images it took."""
        runtime.seed_step(0, STEP)
        with runtime.autocast(self.device, self.recipe.training):
            loss = self.loss()
        loss.backward()
        self.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.case.batch

    def move(self, device: torch.device) -> None:
        """Everything that lasts between steps, so that the other side has the device for itself."""
        for network in (self.student, self.teacher):
            network.to(device)
        for state in self.optimizer.state.values():
            state.update({key: value.to(device) for key, value in state.items() if key != "step"})


class Ours(Side):
    """midnight.ssl as the trainer runs it."""

    def make(self) -> None:
        self.student = build_student(self.recipe)
        self.teacher = teacher_of(self.student).to(self.device)
        self.student.to(self.device).train()
        self.optimizer = build_optimizer(self.student, self.recipe.optimizer)
        self.updating = update_of(self.student, self.teacher, self.optimizer, self.recipe.optimizer)

    def loss(self) -> Tensor:
        temperature = self.values.teacher_temperature
        return compute_losses(self.student, self.teacher, self.batch, temperature, self.recipe.loss).total

    def update(self) -> None:
        self.updating.clip(self.values)
        self.updating.apply(self.values)


class Plain(Side):
    """The straightforward implementation, from the same random weights."""

    def make(self) -> None:
        weights = build_student(self.recipe).state_dict()
        self.student = plain.PlainNetwork(self.recipe, self.recipe.backbone.drop_path)
        self.teacher = plain.PlainNetwork(self.recipe, 0.0)
        for network in (self.student, self.teacher):
            network.load_state_dict(weights)
            network.to(self.device).train()
        self.teacher.requires_grad_(False).eval()
        groups = parameter_groups(self.student, self.recipe.optimizer)
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=self.recipe.optimizer.betas)

    def loss(self) -> Tensor:
        return plain.losses(self.student, self.teacher, self.batch, self.values.teacher_temperature, self.recipe)

    def update(self) -> None:
        clip_gradients(self.student, self.recipe.optimizer.clip_grad)
        apply_schedule(self.optimizer, self.values)
        self.optimizer.step()
        plain.update_teacher(self.student, self.teacher, self.values.momentum)


SIDES: dict[str, type[Side]] = {"ours": Ours, "plain": Plain}


def parameters(network: nn.Module) -> float:
    """Millions of parameters."""
    return round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 1)
