"""Memory of one GPU during a training step, by formula, in bytes.

float32: weights, teacher, gradients and AdamW's two moments; of plain blocks the residual stream and the norms' inputs.
The rest of the activations, and copies of the weights for the matrix products, are of the recipe's precision. What
fused blocks keep for the backward pass is counted or, where a recipe has none, what plain ones keep in eager mode;
compiled blocks keep less.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from midnight.config import Recipe, choose
from midnight.ssl.budget.flops import crop_groups, hidden_patches
from midnight.ssl.budget.shape import Shape
from midnight.ssl.model.residual import kept_count

RESERVE = 4e9
"""CUDA's context, NCCL's buffers, cuBLAS's workspaces and the allocator's gaps [our choice]."""


@dataclass(frozen=True)
class Plan:
    """Bytes per GPU by purpose; sharded: FSDP over the recipe's GPUs; recompute: activation checkpointing."""

    sharded: bool
    recompute: bool
    parts: dict[str, float]

    @property
    def total(self) -> float:
        """Bytes in all."""
        return sum(self.parts.values())


def element(recipe: Recipe) -> int:
    """Bytes of a number in the recipe's precision."""
    return choose(
        recipe.training.precision, {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 2}, "training.precision"
    )


def fused(recipe: Recipe) -> bool:
    """Whether the recipe's blocks run fused on a GPU that can (see `midnight.ssl.model.fused`)."""
    return recipe.training.precision == "bfloat16" and not recipe.training.compile


def own_plan(recipe: Recipe, choices: Sequence[Plan]) -> Plan:
    """The plan that the recipe's `training.sharding` and `training.activation_checkpointing` ask for."""
    training = recipe.training
    wanted = training.sharded and training.gpus > 1, training.activation_checkpointing
    return next(plan for plan in choices if (plan.sharded, plan.recompute) == wanted)


def plans(recipe: Recipe, shape: Shape) -> list[Plan]:
    """Plain data parallel and, with more than one GPU, FSDP; each without and with activation checkpointing."""
    shardings = (False, True) if recipe.training.gpus > 1 else (False,)
    return [
        Plan(sharded, recompute, states(recipe, shape, sharded) | passes(recipe, shape, recompute))
        for sharded in shardings
        for recompute in (False, True)
    ]


def states(recipe: Recipe, shape: Shape, sharded: bool) -> dict[str, float]:
    """What stays from step to step, and copies of the weights.

    Autocast's copies of the student's weights live until the backward pass has used them, under FSDP too. That
    borrows two blocks (or heads) at a time, one at work and one on its way, in float32; with the gradient of one and
    a copy of it to send. Accumulating gradients without communication keeps them whole.
    """
    share = 1 / recipe.training.gpus if sharded else 1.0
    whole = 4.0 * shape.parameters
    size = element(recipe)
    borrowed = 4 * 4 * max(shape.block_parameters, *shape.head_parameters) if sharded else 0
    unsent = whole if sharded and recipe.training.accumulation > 1 else 0.0
    return {
        "weights": whole * share,
        "EMA teacher": whole * share,
        "gradients": whole * share + unsent,
        "AdamW": 2 * whole * share,
        "weights' copies": float(borrowed + (shape.parameters * size if size < 4 else 0)),
    }


def passes(recipe: Recipe, shape: Shape, recompute: bool) -> dict[str, float]:
    """What one forward and backward pass needs besides the weights."""
    one_block = block_activations(recipe, shape)
    stream = float(element(recipe) if fused(recipe) else 4) * shape.dim * all_tokens(recipe, shape)
    per_block = stream if recompute else one_block
    return {
        "activations": shape.depth * per_block + ends(recipe, shape),
        "heads and logits": head_activations(recipe, shape),
        "working memory": one_block + 2 * stream,
        "reserve": RESERVE,
    }


def all_tokens(recipe: Recipe, shape: Shape) -> int:
    """The student's tokens on one GPU and micro-step."""
    return sum(crops * shape.tokens(size) for crops, size in crop_groups(recipe)) * recipe.training.batch_size


def kept_tokens(recipe: Recipe, shape: Shape) -> int:
    """Those of the samples that keep a residual branch."""
    batch, drop = recipe.training.batch_size, recipe.backbone.drop_path
    return sum(kept_count(crops * batch, drop) * shape.tokens(size) for crops, size in crop_groups(recipe))


def block_activations(recipe: Recipe, shape: Shape) -> float:
    """What one block keeps for its backward pass, bytes.

    Per token that a branch sees: the norms' inputs (float32) and statistics; then, in the recipe's precision, the
    norms' outputs (2 D), q, k, v (3), attention's output and its packed copy (2), both branches' last outputs for
    LayerScale (2), the MLP's first layer, and what its second gets (and, in a SwiGLU, the gate). Fused blocks keep the
    statistics, the norms' outputs, q, k, v, attention's output and the MLP's first layer.
    """
    size = element(recipe)
    if fused(recipe):
        of_token = 4 * (2 + shape.heads) + size * (2 * shape.dim + 4 * shape.attention + shape.mlp_in)
        return float(of_token * kept_tokens(recipe, shape))
    gated = shape.mlp_in != shape.mlp_out
    narrow = 4 * shape.dim + 5 * shape.attention + shape.mlp_in + (2 if gated else 1) * shape.mlp_out
    per_token = 4 * (2 * shape.dim + 4 + shape.heads) + size * narrow
    return float(per_token * kept_tokens(recipe, shape))


def ends(recipe: Recipe, shape: Shape) -> float:
    """Images, embedding and last norm: crops in float32, the norm's input and output, bytes."""
    pixels = sum(crops * 3 * size**2 for crops, size in crop_groups(recipe)) * recipe.training.batch_size
    return (4.0 + element(recipe)) * pixels + 8.0 * shape.dim * all_tokens(recipe, shape)


def head_activations(recipe: Recipe, shape: Shape) -> float:
    """Of the heads: MLP activations, logits and their gradients, targets in float32, copies of the prototypes."""
    size, heads, batch = element(recipe), recipe.heads, recipe.training.batch_size
    cls = sum(crops for crops, _ in crop_groups(recipe)) * batch
    hidden = math.ceil(hidden_patches(recipe, shape) * batch)
    rows = cls + hidden
    layers = rows * (heads.layers - 1) * 2 * heads.hidden * size
    logits = 2 * rows * heads.prototypes * size
    # DINO's twice, the second time as means per crop; of iBOT's the teacher's logits.
    targets = (5 * batch * 4 + hidden * size) * heads.prototypes
    widths = [heads.bottleneck, heads.ibot_bottleneck or heads.bottleneck][: len(shape.head_parameters)]
    prototypes = sum(widths) * heads.prototypes * size  # as the product takes them
    return float(layers + logits + targets + prototypes)
