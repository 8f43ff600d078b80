"""What the schema of a recipe can't say: which values go together. Each check gives lines that begin with the key."""

import math
import re
from collections.abc import Iterator

from midnight.config.recipe import Crops, Loss, Optimizer, Recipe, Tiles, Training

PATCH = re.compile(r"patch(\d+)")


def recipe_problems(recipe: Recipe) -> list[str]:
    """Everything that would fail, or train something else than is meant; a line each."""
    return [
        *_tiles(recipe.tiles),
        *_crops(recipe.crops, patch_size(recipe)),
        *_loss(recipe.loss),
        *_optimizer(recipe.optimizer, recipe.training),
        *_training(recipe.training),
    ]


def patch_size(recipe: Recipe) -> int | None:
    """Side of a patch, px: from `backbone.kwargs`, else from the architecture's name, else unknown."""
    given = recipe.backbone.kwargs.get("patch_size")
    if isinstance(given, int) and given > 0:
        return given
    named = PATCH.search(recipe.backbone.arch)
    return int(named.group(1)) if named else None


def _tiles(tiles: Tiles) -> Iterator[str]:
    if tiles.hsv_filter:
        for name in ("hue", "saturation", "value"):
            yield from _ordered(f"tiles.hsv_filter.{name}", getattr(tiles.hsv_filter, name))
    if tiles.mpp_weights is not None:
        if len(tiles.mpp_weights) != len(tiles.mpps):
            yield f"tiles.mpp_weights: {len(tiles.mpp_weights)} weights of {len(tiles.mpps)} mpps; give one of each"
        elif not sum(tiles.mpp_weights):
            yield "tiles.mpp_weights: all are 0, so no tile would be drawn"
    if tiles.read_side is not None and tiles.read_side < tiles.size:
        yield f"tiles.read_side: {tiles.read_side} px is less than tiles.size, {tiles.size} px"


def _crops(crops: Crops, patch: int | None) -> Iterator[str]:
    for name in ("global_size", "local_size"):
        side = getattr(crops, name)
        if patch and side % patch and (name == "global_size" or crops.n_local):
            low, high = side // patch * patch, -(-side // patch) * patch
            near = " or ".join(str(number) for number in (low, high) if number)
            yield f"crops.{name}: {side} px is no multiple of the patch, {patch} px; take {near}"
    if crops.n_local and crops.local_size > crops.global_size:
        yield f"crops.local_size: {crops.local_size} px is more than crops.global_size, {crops.global_size} px"
    for name in ("global_scale", "local_scale"):
        yield from _ordered(f"crops.{name}", getattr(crops, name), above=0)
    yield from _jitter(crops)
    for name in ("mean", "std"):
        if max(getattr(crops, name)) > 1:
            advice = "pixels count from 0 to 1 here, so divide by 255"
            yield f"crops.{name}: {list(getattr(crops, name))} is on the scale of 0 to 255; {advice}"
    if min(crops.mean) < 0:
        yield f"crops.mean: {list(crops.mean)}: pixels count from 0 to 1, so no mean is below 0"


def _jitter(crops: Crops) -> Iterator[str]:
    *factors, hue = crops.jitter
    if max(factors) > 1:
        yield f"crops.jitter: {list(crops.jitter)}: brightness, contrast and saturation change by a share, at most 1"
    if hue > 0.5:
        yield f"crops.jitter: hue {hue} is more than half the circle of colours, 0.5"


def _loss(loss: Loss) -> Iterator[str]:
    yield from _ordered("loss.mask_ratio", loss.mask_ratio)
    if not loss.dino and not loss.ibot:
        yield "loss.dino, loss.ibot: both are 0, so nothing would be learned"
    if loss.ibot and not (loss.mask_probability and loss.mask_ratio[1]):
        yield "loss.ibot: no patch is masked (mask_probability or mask_ratio is 0); set loss.ibot to 0, or mask some"
    if max(loss.teacher_temperature) > loss.student_temperature:
        warmer = f"{max(loss.teacher_temperature)} is warmer than loss.student_temperature, {loss.student_temperature}"
        yield f"loss.teacher_temperature: {warmer}: the teacher must be the sharper one, or its output collapses"


def _optimizer(optimizer: Optimizer, training: Training) -> Iterator[str]:
    batch = training.effective_batch
    peak = optimizer.base_lr * math.sqrt(batch / 1024)
    if optimizer.min_lr > peak:
        yield f"optimizer.min_lr: {optimizer.min_lr:g} is above the peak, base_lr · √({batch}/1024) = {peak:.3g}"
    if peak > 1:
        yield f"optimizer.base_lr: {optimizer.base_lr:g} gives a peak of {peak:.3g}; AdamW's are below 0.01"
    if optimizer.momentum[0] > optimizer.momentum[1]:
        yield f"optimizer.momentum: {list(optimizer.momentum)} falls; the teacher's grows from, to"
    if optimizer.momentum[0] == 1:
        yield "optimizer.momentum: 1 from the start, so the teacher would stay at its init"


def _training(training: Training) -> Iterator[str]:
    if training.iterations < training.accumulation:
        steps = f"{training.iterations} micro-steps are less than training.accumulation, {training.accumulation}"
        yield f"training.iterations: {steps}: no optimizer step would be done"
    length = training.schedule_iterations
    if length is not None and length < training.iterations:
        yield f"training.schedule_iterations: {length} is less than training.iterations, {training.iterations}"


def _ordered(name: str, pair: tuple[float, ...], above: float | None = None) -> Iterator[str]:
    low, high = pair
    if low > high:
        yield f"{name}: {list(pair)} is from the larger to the smaller; turn it round"
    if above is not None and low <= above:
        yield f"{name}: {list(pair)} must be above {above}"
