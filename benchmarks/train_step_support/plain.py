"""The straightforward implementation: timm's model as it is, one pass per crop size, nothing saved or fused.

Every block computes the residuals of all samples and DropPath throws some away; softmaxes and their logarithms over
all prototypes are written out; hidden patches are picked by boolean indexing; parameters are averaged one by one.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.models import VisionTransformer
from torch import Tensor, nn

from midnight.config import Recipe
from midnight.ssl.loss.kde import kde_loss
from midnight.ssl.model.backbone import build_vit
from midnight.ssl.model.heads import DINOHead
from midnight.ssl.step import Batch


class PlainBackbone(nn.Module):
    """timm's vision transformer with a mask token; parameters are named as ours are."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit
        self.mask_token = nn.Parameter(torch.zeros(vit.embed_dim))

    def forward(self, images: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """CLS [B, D] and patches [B, N, D] of images [B, 3, H, W] with hidden patches [B, N]."""
        tokens = self.vit.patch_embed(images)
        if masks is not None:
            tokens = torch.where(masks.view(*tokens.shape[:3], 1), self.mask_token.to(tokens.dtype), tokens)
        tokens = self.vit.norm(self.vit.blocks(self.vit.norm_pre(self.vit._pos_embed(tokens))))
        return tokens[:, 0], tokens[:, self.vit.num_prefix_tokens :]


class PlainNetwork(nn.Module):
    """A backbone and two heads; parameters are named as ours are."""

    def __init__(self, recipe: Recipe, drop_path: float) -> None:
        super().__init__()
        self.backbone = PlainBackbone(build_vit(recipe.backbone, recipe.crops.global_size, drop_path))
        self.dino_head = DINOHead(self.backbone.vit.embed_dim, recipe.heads)
        self.own_ibot_head = DINOHead(self.backbone.vit.embed_dim, recipe.heads)

    def parts(self) -> list[nn.Module]:
        """What gradients are clipped by."""
        return [self.backbone, self.dino_head, self.own_ibot_head]


def sinkhorn(logits: Tensor, temperature: float, iterations: int) -> Tensor:
    """Targets [N, K] of logits [N, K], a new tensor in each step."""
    scaled = logits.float() / temperature
    targets = torch.exp(scaled - scaled.max())
    targets = targets / targets.sum()
    for _ in range(iterations):
        targets = targets / targets.sum(dim=0, keepdim=True) / targets.shape[1]
        targets = targets / targets.sum(dim=1, keepdim=True) / targets.shape[0]
    return targets * targets.shape[0]


def cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """−Σ t · log softmax(s / temperature) of [N, K], as it is written."""
    return -(teacher * F.log_softmax(student.float() / temperature, dim=-1)).sum(dim=-1)


def dino(student: Sequence[Tensor], teacher: Sequence[Tensor], temperature: float) -> Tensor:
    """Mean over all pairs of different crops; each crop's logits are [B, K]."""
    pairs = [(s, t) for s in range(len(student)) for t in range(len(teacher)) if s != t]
    return torch.stack([cross_entropy(student[s], teacher[t], temperature).mean() for s, t in pairs]).mean()


def ibot(student: Tensor, teacher: Tensor, masks: Tensor, temperature: float) -> Tensor:
    """Mean over each crop's hidden patches, then over crops."""
    weights = (1.0 / masks.sum(dim=1, keepdim=True).clamp_min(1).float()).expand(masks.shape)[masks]
    return (cross_entropy(student, teacher, temperature) * weights).sum() / len(masks)


def losses(
    student: PlainNetwork, teacher: PlainNetwork, batch: Batch, teacher_temperature: float, recipe: Recipe
) -> Tensor:
    """The whole objective, with KDE."""
    config, tiles = recipe.loss, len(batch.global_crops) // 2
    temperature, iterations = config.student_temperature, config.sinkhorn_iterations
    with torch.no_grad():
        cls, patches = teacher.backbone(batch.global_crops)
        dino_targets = sinkhorn(teacher.dino_head(cls), teacher_temperature, iterations).split(tiles)
        ibot_targets = sinkhorn(teacher.own_ibot_head(patches[batch.masks]), teacher_temperature, iterations)
    cls, patches = student.backbone(batch.global_crops, batch.masks)
    logits = list(student.dino_head(cls).split(tiles))
    if batch.local_crops is not None:
        logits += student.dino_head(student.backbone(batch.local_crops)[0]).split(tiles)
    hidden = student.own_ibot_head(patches[batch.masks])
    total = config.dino * dino(logits, dino_targets, temperature)
    total = total + config.ibot * ibot(hidden, ibot_targets, batch.masks, temperature)
    spread = sum(kde_loss(view, config.kde_kappa) for view in cls.split(tiles))
    return total + config.regularizer_weight * spread


@torch.no_grad()
def update_teacher(student: nn.Module, teacher: nn.Module, momentum: float) -> None:
    """Exponential moving average, parameter by parameter."""
    for mean, value in zip(teacher.parameters(), student.parameters(), strict=True):
        mean.mul_(momentum).add_(value, alpha=1 - momentum)
