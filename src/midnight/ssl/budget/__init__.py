"""What a run takes, before it starts: parameters, FLOPs, memory, GPU-hours, cost and energy."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from midnight.config import Recipe
from midnight.errors import MidnightError
from midnight.ssl.budget.cost import GPUS, Cost, Rates, cost_of
from midnight.ssl.budget.fit import largest_batch
from midnight.ssl.budget.flops import Flops, flops_per_tile
from midnight.ssl.budget.memory import Plan, own_plan, plans
from midnight.ssl.budget.shape import Shape, measure
from midnight.ssl.schedules import peak_lr

__all__ = ["Budget", "as_dict", "budget_of", "rates_of"]


@dataclass(frozen=True)
class Budget:
    """A recipe's shape, FLOPs, memory plans (`plan`: the recipe's own among them) and cost at the rates."""

    recipe: Recipe
    shape: Shape
    flops: Flops
    plans: list[Plan]
    plan: Plan
    rates: Rates
    cost: Cost


def rates_of(
    gpu: str, mfu: float, price: float | None = None, watts: float | None = None, memory: float | None = None
) -> Rates:
    """Rates, with a GPU's own price, power (W) and memory (GB) where none is given.

    Raises:
        MidnightError: a rate is out of range.
    """
    if not 0 < mfu <= 1:
        raise MidnightError(f"--mfu: {mfu} is no share; give a number above 0 and up to 1")
    chosen = GPUS[gpu]
    price, watts = chosen.price if price is None else price, chosen.watts if watts is None else watts
    if price < 0 or watts < 0:
        raise MidnightError("--price and --watts must not be negative")
    if memory is not None and not memory > 0:
        raise MidnightError(f"--memory: {memory} GB is no memory; give the GPU's, such as 24")
    if memory is not None:
        chosen = dataclasses.replace(chosen, memory=memory * 1e9)
    return Rates(chosen, mfu, price, watts)


def budget_of(recipe: Recipe, rates: Rates) -> Budget:
    """What a run by this recipe takes.

    Raises:
        MidnightError: the backbone can't be built, or no formula describes its blocks.
    """
    shape = measure(recipe)
    flops = flops_per_tile(recipe, shape)
    choices = plans(recipe, shape)
    return Budget(recipe, shape, flops, choices, own_plan(recipe, choices), rates, cost_of(recipe, flops, rates))


def as_dict(budget: Budget) -> dict[str, Any]:
    """JSON-like: bytes, FLOP, hours, USD and kWh as plain numbers."""
    shape, memory = budget.shape, []
    for plan in budget.plans:
        fits = {gpu.name: plan.total <= gpu.memory for gpu in GPUS.values()}
        memory.append(dataclasses.asdict(plan) | {"total": plan.total, "fits": fits, "own": plan is budget.plan})
    return {
        "parameters": {
            "backbone": shape.backbone_parameters,
            "heads": list(shape.head_parameters),
            "student": shape.parameters,
        },
        "flop_per_image": dataclasses.asdict(budget.flops) | {"total": budget.flops.total},
        "memory_per_gpu": memory,
        "batch": {
            "effective": budget.recipe.training.effective_batch,
            "peak_lr": peak_lr(budget.recipe, budget.recipe.training.gpus),
            "largest": largest_batch(budget.recipe, shape, budget.rates.gpu.memory, recompute=False),
            "largest_with_checkpointing": largest_batch(budget.recipe, shape, budget.rates.gpu.memory, recompute=True),
        },
        "rates": dataclasses.asdict(budget.rates),
        "cost": dataclasses.asdict(budget.cost),
    }
