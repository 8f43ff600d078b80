"""What changes over the run: learning rate, weight decay, teacher's momentum and temperature."""

import math
from dataclasses import dataclass

from midnight.config import Recipe


@dataclass(frozen=True)
class Values:
    """The schedules' values at one micro-step."""

    lr: float
    weight_decay: float
    momentum: float
    teacher_temperature: float
    frozen_prototypes: bool


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` at progress 0 to `end` at 1; flat outside."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def linear(start: float, end: float, progress: float) -> float:
    """A straight line from `start` at progress 0 to `end` at 1; flat outside."""
    return start + (end - start) * min(max(progress, 0.0), 1.0)


def peak_lr(recipe: Recipe, world: int) -> float:
    """Base rate · √(effective batch / 1024) [DINOv2]; the effective batch is tiles per optimizer step."""
    training = recipe.training
    return recipe.optimizer.base_lr * math.sqrt(training.batch_size * training.accumulation * world / 1024)


def learning_rate(recipe: Recipe, step: int, world: int) -> float:
    """Linear warm-up to the peak, reached with the last warm-up step, then a cosine to `min_lr`."""
    total = schedule_length(recipe)
    peak = peak_lr(recipe, world)
    warmup = round(recipe.optimizer.warmup * total)
    if step < warmup:
        return peak * (step + 1) / warmup
    return cosine(peak, recipe.optimizer.min_lr, (step - warmup) / max(1, total - warmup))


def schedule_length(recipe: Recipe) -> int:
    """Micro-steps over which the schedules run."""
    return recipe.training.schedule_iterations or recipe.training.iterations


def values_at(recipe: Recipe, step: int, world: int = 1) -> Values:
    """All schedules at micro-step `step` (0 is the first)."""
    total = schedule_length(recipe)
    progress = step / total
    loss, optimizer = recipe.loss, recipe.optimizer
    warm = progress / loss.teacher_warmup if loss.teacher_warmup > 0 else 1.0
    return Values(
        lr=learning_rate(recipe, step, world),
        weight_decay=cosine(*optimizer.weight_decay, progress),
        momentum=cosine(*optimizer.momentum, progress),
        teacher_temperature=linear(*loss.teacher_temperature, warm),
        frozen_prototypes=progress < optimizer.freeze_last_layer,
    )
