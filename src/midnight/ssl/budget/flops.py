"""Floating-point operations of one tile's share of a training step, by formula.

Counted are matrix products, a multiplication and an addition as 2: linear layers, attention, patch embedding, heads.
Norms, softmax, losses and Sinkhorn-Knopp are left out (far below 1 %), so is what activation checkpointing computes
again: with MFU one means model FLOPs.
"""

from dataclasses import dataclass

from midnight.config import Recipe
from midnight.ssl.budget.shape import Shape
from midnight.ssl.model.residual import kept_count


@dataclass(frozen=True)
class Flops:
    """FLOP per tile: the teacher's forward, the student's forward and backward; `blocks` of the student's forward
    that activation checkpointing would repeat; `skipped` that stochastic depth saves."""

    teacher: float
    forward: float
    backward: float
    blocks: float
    skipped: float

    @property
    def total(self) -> float:
        """Of a training step."""
        return self.teacher + self.forward + self.backward


def crop_groups(recipe: Recipe) -> list[tuple[int, int]]:
    """The student's crops: (crops per tile, side in px) of each size."""
    crops = recipe.crops
    groups = [(2, crops.global_size), (crops.n_local, crops.local_size)]
    return [(count, size) for count, size in groups if count]


def kept_share(recipe: Recipe, crops: int) -> float:
    """The share of a GPU's samples that keep a residual branch, of `crops` crops per tile."""
    samples = crops * recipe.training.batch_size
    return kept_count(samples, recipe.backbone.drop_path) / samples


def hidden_patches(recipe: Recipe, shape: Shape) -> float:
    """Expected hidden patches per tile: what iBOT's head sees (the masks' blocks may leave a few of them out)."""
    batch, loss = recipe.training.batch_size, recipe.loss
    masked = int(2 * batch * loss.mask_probability) / batch
    return masked * shape.patches(recipe.crops.global_size) * sum(loss.mask_ratio) / 2


def block_flops(shape: Shape, tokens: int) -> float:
    """One block's forward of one crop: linear layers, and attention's two products of [tokens × tokens]."""
    return 2.0 * tokens * shape.block_weights + 4.0 * tokens**2 * shape.attention


def flops_per_tile(recipe: Recipe, shape: Shape, hidden: float | None = None) -> Flops:
    """FLOP of one tile.

    Args:
        recipe: crops, batch, masks and stochastic depth.
        shape: of its networks.
        hidden: patches per tile that are hidden; as many as expected if None.
    """
    hidden = hidden_patches(recipe, shape) if hidden is None else hidden
    groups = crop_groups(recipe)
    side = recipe.crops.global_size
    everything = [crops * shape.depth * block_flops(shape, shape.tokens(size)) for crops, size in groups]
    blocks = sum(part * kept_share(recipe, crops) for part, (crops, _) in zip(everything, groups, strict=True))
    stem = sum(2.0 * crops * shape.patches(size) * shape.stem_weights for crops, size in groups)
    head, patches = 2.0 * shape.head_weights, 2.0 * shape.ibot_head_weights * hidden
    forward = blocks + head * sum(crops for crops, _ in groups) + patches
    teacher_stem = 4.0 * shape.patches(side) * shape.stem_weights
    return Flops(
        teacher=everything[0] + teacher_stem + head * 2 + patches,
        forward=forward + stem,
        backward=2 * forward + stem,  # no gradient of the images
        blocks=blocks,
        skipped=3 * (sum(everything) - blocks),
    )
