"""The largest batch that fits a GPU's memory, by formula."""

import dataclasses

from midnight.config import Recipe
from midnight.ssl.budget.memory import own_plan, plans
from midnight.ssl.budget.shape import Shape

MOST = 1 << 20


def largest_batch(recipe: Recipe, shape: Shape, memory: float, recompute: bool | None = None) -> int:
    """Tiles per GPU and micro-step that fit; 0 if not even one does.

    Args:
        recipe: all but `training.batch_size` is as it says.
        shape: of its network.
        memory: of the GPU, bytes.
        recompute: with activation checkpointing; as the recipe says if None.
    """
    low, high = 0, MOST
    while high - low > 1:
        middle = (low + high) // 2
        if total_with(recipe, shape, middle, recompute) <= memory:
            low = middle
        else:
            high = middle
    return low


def total_with(recipe: Recipe, shape: Shape, batch: int, recompute: bool | None = None) -> float:
    """Bytes per GPU with another batch."""
    training = recipe.training
    recompute = training.activation_checkpointing if recompute is None else recompute
    changed = dataclasses.replace(training, batch_size=batch, activation_checkpointing=recompute)
    whole = dataclasses.replace(recipe, training=changed)
    return own_plan(whole, plans(whole, shape)).total
