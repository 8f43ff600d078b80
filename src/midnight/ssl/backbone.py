"""The vision transformer: timm's, with masked patches."""

from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.layers import DropPath, LayerScale
from timm.models import VisionTransformer
from torch import Tensor, nn

from midnight.config import Backbone
from midnight.errors import ConfigError


@dataclass(frozen=True)
class Features:
    """Normalised output tokens of B images: cls [B, D], registers [B, R, D], patches [B, N, D]."""

    cls: Tensor
    registers: Tensor
    patches: Tensor


def timm_kwargs(backbone: Backbone, img_size: int) -> dict[str, Any]:
    """Arguments of `timm.create_model` besides `pretrained`, `num_classes` and stochastic depth.

    Args:
        backbone: the recipe's backbone.
        img_size: side of the input for which position embeddings are kept, px; other sizes are interpolated.
    """
    scale = {} if backbone.layer_scale is None else {"init_values": backbone.layer_scale}
    return {**backbone.kwargs, **scale, "img_size": img_size, "dynamic_img_size": True}


def build_vit(backbone: Backbone, img_size: int, drop_path: float = 0.0, pretrained: bool = False) -> VisionTransformer:
    """A timm vision transformer without a classifier.

    Raises:
        ConfigError: timm has no such model, or it does not take these arguments.
    """
    kwargs = timm_kwargs(backbone, img_size)
    try:
        vit = timm.create_model(backbone.arch, pretrained=pretrained, num_classes=0, **kwargs)
    except (RuntimeError, TypeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"backbone: timm can't build {backbone.arch!r} with {kwargs}: {reason}") from error
    if not isinstance(vit, VisionTransformer) or not vit.has_class_token:
        raise ConfigError(f"backbone.arch: {backbone.arch!r} is no vision transformer with a CLS token")
    set_drop_path(vit, drop_path)
    return vit


def set_drop_path(vit: VisionTransformer, rate: float) -> None:
    """Drop every block's residual with the same probability, as DINOv2 does (timm's grows with depth)."""
    for block in vit.blocks:
        block.drop_path1 = DropPath(rate) if rate > 0 else nn.Identity()
        block.drop_path2 = DropPath(rate) if rate > 0 else nn.Identity()


def exported_kwargs(backbone: Backbone, vit: VisionTransformer) -> dict[str, Any]:
    """The arguments with which plain timm builds this model again: all that matter are explicit."""
    kwargs = timm_kwargs(backbone, vit.patch_embed.img_size[0])
    scale = vit.blocks[0].ls1
    if isinstance(scale, LayerScale):
        kwargs.setdefault("init_values", 1e-5)
    return kwargs | {"patch_size": vit.patch_embed.patch_size[0], "reg_tokens": vit.num_reg_tokens}


def check_sizes(patch_size: int, **sizes: int) -> None:
    """Check that each size (px) is a multiple of the patch size (px).

    Raises:
        ConfigError: it isn't; names the key.
    """
    for name, size in sizes.items():
        if size % patch_size:
            raise ConfigError(f"crops.{name}: {size} px is not a multiple of the backbone's patches of {patch_size} px")


class MaskedViT(nn.Module):
    """A timm vision transformer that sees a learned token in place of masked patches."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit
        self.mask_token = nn.Parameter(torch.zeros(vit.embed_dim))

    @property
    def patch_size(self) -> int:
        """Side of a patch, px."""
        return self.vit.patch_embed.patch_size[0]

    def forward(self, images: Tensor, masks: Tensor | None = None) -> Features:
        """Features of normalised images float [B, 3, H, W]; bool masks [B, N] mark patches that are hidden."""
        tokens = self.vit.patch_embed(images)
        if masks is not None:
            hidden = masks.view(*tokens.shape[:3], 1)
            tokens = torch.where(hidden, self.mask_token.to(tokens.dtype), tokens)
        tokens = self.vit.norm_pre(self.vit._pos_embed(tokens))
        tokens = self.vit.norm(self.vit.blocks(tokens))
        prefix = self.vit.num_prefix_tokens
        return Features(tokens[:, 0], tokens[:, 1:prefix], tokens[:, prefix:])
