"""One micro-step: from a batch of crops to the loss."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from midnight.config import Crops, Loss, Recipe, choose
from midnight.sending import per_channel, send
from midnight.ssl.kernels import has_triton
from midnight.ssl.kernels.targets import ScaledTargets
from midnight.ssl.loss.dino import dino_loss
from midnight.ssl.loss.ibot import hidden_rows, ibot_loss
from midnight.ssl.loss.kde import kde_loss
from midnight.ssl.loss.koleo import koleo_loss
from midnight.ssl.loss.sinkhorn import scaled_sinkhorn, sinkhorn
from midnight.ssl.model.network import Network


@dataclass(frozen=True)
class Batch:
    """Crops of B tiles, normalised: global_crops [2·B, 3, G, G] and local_crops [L·B, 3, S, S] (None if L = 0),

    all first views before all second views; masks bool [2·B, N] of hidden patches; hidden int64 [M], where those lie
    among all 2·B·N patches (None: `rows` finds them in the masks, for which a GPU has to be waited for).
    """

    global_crops: Tensor
    local_crops: Tensor | None
    masks: Tensor
    hidden: Tensor | None = None

    @functools.cached_property
    def rows(self) -> Tensor:
        """Where the hidden patches lie among all patches: int64 [M]."""
        return hidden_rows(self.masks) if self.hidden is None else self.hidden


@dataclass(frozen=True)
class Targets:
    """The teacher's: dino [2, B, K] and ibot [M, K] probabilities (those on a GPU as scalings of logits), and its CLS

    embeddings [2·B, D].
    """

    dino: Tensor
    ibot: Tensor | ScaledTargets
    cls: Tensor


@dataclass(frozen=True)
class Losses:
    """Scalars of one micro-step; regularizer is unweighted, total is what is minimised."""

    total: Tensor
    dino: Tensor
    ibot: Tensor
    regularizer: Tensor
    student_logits: Tensor
    targets: Targets


def normalise(crops: Tensor, config: Crops, device: torch.device) -> Tensor:
    """Crops [B, V, 3, H, W] as normalised float32 [V·B, 3, H, W] on `device`, all first views first.

    uint8 crops are normalised; floats were (by `midnight.tiles.augment.device`).
    """
    flat = crops.to(device, non_blocking=True).transpose(0, 1).flatten(0, 1)
    if flat.is_floating_point():
        return flat
    return (flat.float() / 255 - per_channel(tuple(config.mean), device)) / per_channel(tuple(config.std), device)


def prepare(raw: Mapping[str, Tensor], masks: Tensor, config: Crops, device: torch.device) -> Batch:
    """A loader's batch on the device.

    Args:
        raw: `global_crops` [B, 2, 3, G, G], `local_crops` [B, L, 3, S, S]: uint8, or float32 and normalised.
        masks: bool [2·B, N], on the CPU.
        config: mean and standard deviation.
        device: where to.
    """
    local = raw["local_crops"]
    return Batch(
        normalise(raw["global_crops"], config, device),
        normalise(local, config, device) if local.shape[1] else None,
        send(masks, device),
        send(hidden_rows(masks), device),
    )


def blank(recipe: Recipe) -> dict[str, Tensor]:
    """A batch as a loader gives it, all black."""
    crops, count, side = recipe.crops, recipe.training.batch_size, recipe.tiles.size
    if recipe.training.whole_tiles:
        return {"tiles": torch.zeros(count, side, side, 3, dtype=torch.uint8), "index": torch.zeros(count).long()}
    shapes = {"global_crops": (2, crops.global_size), "local_crops": (crops.n_local, crops.local_size)}
    return {name: torch.zeros(count, n, 3, s, s, dtype=torch.uint8) for name, (n, s) in shapes.items()}


@torch.no_grad()
def teacher_targets(teacher: Network, batch: Batch, temperature: float, iterations: int) -> Targets:
    """What the student shall predict, of the CLS tokens and of the hidden patches.

    By Sinkhorn–Knopp over those of all ranks or, of a teacher with centres, by softmax less the centre.
    """
    (cls,), hidden = teacher.backbone(batch.global_crops, hidden=batch.rows)
    tokens, patches = teacher.dino_head(cls), teacher.ibot_head(hidden)
    ibot: Tensor | ScaledTargets
    if teacher.centres is not None:
        dino = teacher.centres.dino.targets(tokens, temperature)
        ibot = teacher.centres.ibot.targets(patches, temperature)
    else:
        dino = sinkhorn(tokens, temperature, iterations)
        by_kernels = has_triton(patches.device)
        ibot = (scaled_sinkhorn if by_kernels else sinkhorn)(patches, temperature, iterations)
    return Targets(dino.unflatten(0, (2, -1)), ibot, cls)


REGULARIZERS: dict[str, Callable[[Tensor, Loss], Tensor]] = {
    "kde": lambda view, config: kde_loss(view, config.kde_kappa, config.gather_regularizer),
    "koleo": lambda view, config: koleo_loss(view, config.gather_regularizer),
    "none": lambda view, config: view.new_zeros((), dtype=torch.float32),
}
"""Of one view's embeddings [B, D]: a scalar."""


def regularize(cls: Tensor, config: Loss) -> Tensor:
    """The regularizer, summed over the two global crops as in DINOv2: crops of one tile are never driven apart.

    Args:
        cls: the student's CLS embeddings [2·B, D] before the head.
        config: which regularizer.
    """
    regularizer = choose(config.regularizer, REGULARIZERS, "loss.regularizer")
    return torch.stack([regularizer(view, config) for view in cls.chunk(2)]).sum()


def compute_losses(
    student: Network, teacher: Network, batch: Batch, teacher_temperature: float, config: Loss
) -> Losses:
    """DINO + iBOT + λ · regularizer of one batch.

    The student sees the global crops with hidden patches, the teacher without. The student's crops of both sizes go
    through its blocks together.
    """
    targets = teacher_targets(teacher, batch, teacher_temperature, config.sinkhorn_iterations)
    crops = [batch.global_crops] if batch.local_crops is None else [batch.global_crops, batch.local_crops]
    cls, hidden = student.backbone(crops, batch.masks, hidden=batch.rows)
    logits = student.dino_head(torch.cat(cls)).unflatten(0, (-1, targets.dino.shape[1]))
    dino = dino_loss(logits, targets.dino, config.student_temperature)
    ibot = ibot_loss(student.ibot_head(hidden), targets.ibot, batch.masks, config.student_temperature, batch.rows)
    regularizer = regularize(cls[0], config)
    # DINOv2 divides by its terms and counts one of a local crop at least: of 3 where there are 2.
    scale = 2 / 3 if batch.local_crops is None else 1.0
    total = scale * config.dino * dino + config.ibot * ibot + config.regularizer_weight * regularizer
    return Losses(total, dino, ibot, regularizer, logits[:2].detach(), targets)
