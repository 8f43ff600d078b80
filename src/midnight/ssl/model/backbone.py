"""The vision transformer: timm's, with masked patches."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast, overload

import timm
import torch
from timm.layers import Attention, DropPath, LayerScale
from timm.models import VisionTransformer
from timm.models.eva import Eva
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from midnight.config import Backbone
from midnight.errors import ConfigError
from midnight.ssl.kernels import has_triton
from midnight.ssl.model.attention import settle
from midnight.ssl.model.blocks import compile_blocks, drop_rates, make_packable
from midnight.ssl.model.fused import fusable, needed_rows, patch_tokens
from midnight.ssl.model.packing import Packing, pack, unpack
from midnight.ssl.model.positions import add_positions, resize_of
from midnight.ssl.model.residual import draw_kept, draw_rows

FUSED_ON: set[str] = set()
"""Kinds of device besides GPUs where blocks run fused: that is right everywhere, but gains nothing there."""


class Features(NamedTuple):
    """Normalised output tokens of B images: cls [B, D], registers [B, R, D], patches [B, N, D].

    A tuple, since FSDP must find the tensors in it to hang its hooks for the backward pass on them.
    """

    cls: Tensor
    registers: Tensor
    patches: Tensor


class LossTokens(NamedTuple):
    """Normalised output tokens that the losses look at: cls [B_g, D] of each crop size, hidden patches [M, D]."""

    cls: list[Tensor]
    hidden: Tensor


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
    if isinstance(vit, Eva):
        raise ConfigError(
            f"backbone.arch: {backbone.arch!r} has rotary positions (timm's Eva class, as DINOv3), which can be "
            "evaluated here but not trained; take a …_dinov2 or …_reg4_dinov2 model"
        )
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

    def __init__(
        self, vit: VisionTransformer, checkpointing: bool = False, pos_interpolation: str = "antialias"
    ) -> None:
        """Wrap a model; its blocks are changed in place to take packed tokens.

        Args:
            vit: the model.
            checkpointing: whether a block's activations are computed again in the backward pass, not kept.
            pos_interpolation: how the position table is resized for other sizes, a key of `positions.RESIZES`.

        Raises:
            ConfigError: the model's table can't be resized that way.
        """
        super().__init__()
        self.vit = vit
        self.mask_token = nn.Parameter(torch.zeros(vit.embed_dim))
        self.checkpointing = checkpointing
        self.resize = resize_of(vit, pos_interpolation)
        self.packable = make_packable(vit)
        self.compiled = False
        self.fuse = False

    def compile_blocks(self) -> None:
        """Compile the blocks in place (see `blocks.compile_blocks`)."""
        compile_blocks(self.vit)
        self.compiled = True

    def fuse_blocks(self) -> None:
        """Run the blocks fused where that can be: on a GPU, if they are of the kind that `fused` computes."""
        self.fuse = self.packable and fusable(self.vit)

    @property
    def patch_size(self) -> int:
        """Side of a patch, px."""
        return self.vit.patch_embed.patch_size[0]

    @overload
    def forward(
        self, images: Tensor | Sequence[Tensor], masks: Tensor | None = None, *, hidden: Tensor
    ) -> LossTokens: ...

    @overload
    def forward(self, images: Tensor, masks: Tensor | None = None) -> Features: ...

    @overload
    def forward(self, images: Sequence[Tensor], masks: Tensor | None = None) -> list[Features]: ...

    def forward(
        self, images: Tensor | Sequence[Tensor], masks: Tensor | None = None, *, hidden: Tensor | None = None
    ) -> Features | list[Features] | LossTokens:
        """Features of normalised images float [B, 3, H, W]; bool masks [B, N] mark patches that are hidden.

        A list of images of different sizes goes through the blocks together, packed, and gives a list; masks then
        belong to the first. Blocks that are not timm's plain ones take one size after the other. Results are the
        same but for stochastic depth, which saves work on packed tokens and is drawn otherwise.

        With `hidden`, int64 [M], some of all patches of the (first) images, only those and the CLS tokens are given;
        fused blocks then leave out of the last MLP what nobody looks at.
        """
        groups = [images] if isinstance(images, Tensor) else images
        tokens = [self._embed(crops, None if number else masks) for number, crops in enumerate(groups)]
        if hidden is not None and self._fuses(tokens[0]):
            return self._looked_at(tokens, hidden)
        together = self.packable and not isinstance(images, Tensor)
        features = self._packed(tokens) if together else [self._separate(each) for each in tokens]
        if hidden is not None:
            patches = features[0].patches.flatten(0, 1).index_select(0, hidden)
            return LossTokens([each.cls for each in features], patches)
        return features[0] if isinstance(images, Tensor) else features

    def _embed(self, images: Tensor, masks: Tensor | None) -> Tensor:
        """The tokens [B, T, D] that enter the first block."""
        embed = self._fuses(images)
        tokens = patch_tokens(self.vit.patch_embed, images) if embed else self.vit.patch_embed(images)
        if masks is not None:
            hidden = masks.view(*tokens.shape[:3], 1)
            tokens = torch.where(hidden, self.mask_token.to(tokens.dtype), tokens)
        embedded: Tensor = self.vit.norm_pre(add_positions(self.vit, tokens, self.resize, by_product=embed))
        return embedded

    def _separate(self, tokens: Tensor) -> Features:
        if self._fuses(tokens):
            return self._packed([tokens])[0]
        for block in self.vit.blocks:
            tokens = self._run(block, tokens)
        return self._features(self.vit.norm(tokens))

    def _packed(self, groups: Sequence[Tensor]) -> list[Features]:
        tokens, layout = pack(groups)
        if self._fuses(tokens):
            return [self._features(each) for each in unpack(self.vit.norm(self._fused(tokens, layout)), layout)]
        settle(cast(Attention, self.vit.blocks[0].attn), tokens)
        kept = draw_kept(layout, drop_rates(self.vit), tokens.device)
        for block, samples in zip(self.vit.blocks, kept, strict=True):
            tokens = self._run(block, tokens, layout=layout, kept=samples)
        return [self._features(each) for each in unpack(self.vit.norm(tokens), layout)]

    def _fuses(self, tokens: Tensor) -> bool:
        here = has_triton(tokens.device) if tokens.is_cuda else tokens.device.type in FUSED_ON
        return self.fuse and here and len(set(drop_rates(self.vit))) == 1

    def _looked_at(self, groups: Sequence[Tensor], hidden: Tensor) -> LossTokens:
        tokens, layout = pack(groups)
        needed = needed_rows(layout, self.vit.num_prefix_tokens, hidden)
        seen = self.vit.norm(self._fused(tokens, layout, needed))
        *cls, patches = seen.split([*(group.samples for group in layout), len(hidden)])
        return LossTokens(cls, patches)

    def _fused(self, tokens: Tensor, layout: Packing, needed: Tensor | None = None) -> Tensor:
        kind = tokens.device.type
        if torch.is_autocast_enabled(kind):
            tokens = tokens.to(torch.get_autocast_dtype(kind))
        drawn, last = draw_rows(layout, drop_rates(self.vit), tokens.device), len(self.vit.blocks) - 1
        for number, (block, seen) in enumerate(zip(self.vit.blocks, drawn, strict=True)):
            only = needed if number == last else None
            tokens = self._run(block, tokens, seen=seen, needed=only, copy=self.checkpointing)
        return tokens

    def _run(self, block: nn.Module, tokens: Tensor, **arguments: Any) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            out: Tensor = checkpoint(block, tokens, use_reentrant=False, **arguments)
        else:
            out = block(tokens, **arguments)
        return out

    def _features(self, tokens: Tensor) -> Features:
        prefix = self.vit.num_prefix_tokens
        return Features(tokens[:, 0], tokens[:, 1:prefix], tokens[:, prefix:])
