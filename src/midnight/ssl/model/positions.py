"""Position tables for other grids than their own: as DINOv2 resizes them while it trains, and as timm does.

DINOv2 trains with bicubic interpolation, not antialiased, and a scale of (n + 0.1) / N from N to n patches a side, so
that the table is read at slightly other places; its models with registers, timm and eva antialias and scale by n / N.
"""

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models import VisionTransformer
from torch import Tensor

from midnight.config import choose
from midnight.errors import ConfigError

OFFSET = 0.1
"""Added to the number of patches a side [DINOv2: interpolate_offset]."""

Resize = Callable[[Tensor, tuple[int, int], int], Tensor]
"""Of a table [1, P + N, D], the grid and P prefix tokens, which stay as they are: [1, P + rows · columns, D]."""


def offset(table: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
    """Resize a square table as DINOv2 does in training."""
    side = math.isqrt(table.shape[1] - prefix)
    if grid == (side, side):
        return table
    patches = table[:, prefix:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scale = [(length + OFFSET) / side for length in grid]
    resized = F.interpolate(patches, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)
    return torch.cat([table[:, :prefix], resized.to(table.dtype)], dim=1)


def antialias(table: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
    """Resize a square table as timm does."""
    return resample_abs_pos_embed(table, list(grid), num_prefix_tokens=prefix)


RESIZES: dict[str, Resize] = {"offset": offset, "antialias": antialias}


def resize_of(vit: VisionTransformer, name: str) -> Resize:
    """The resize that `backbone.pos_interpolation` names.

    Raises:
        ConfigError: `offset` for a model that does not add positions as timm's plain vision transformer does.
    """
    resize = choose(name, RESIZES, "backbone.pos_interpolation")
    if resize is offset and type(vit)._pos_embed is not VisionTransformer._pos_embed:
        kind = type(vit).__name__
        raise ConfigError(f"backbone.pos_interpolation: {kind} has its own position table; set it to antialias")
    return resize


def prefix_of(vit: VisionTransformer) -> int:
    """How many of the table's rows belong to tokens that are no patches."""
    return 0 if vit.no_embed_class else vit.num_prefix_tokens


@functools.lru_cache(maxsize=16)
def _matrix(resize: Resize, side: int, grid: tuple[int, int], device: torch.device) -> Tensor:
    """What a resize is, as a matrix float32 [rows · columns, side²]: it is linear."""
    return resize(torch.eye(side * side)[None], grid, 0)[0].to(device)


def by_matrix(resize: Resize, table: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
    """Resize a square table by one product, which a GPU does a hundred times faster than it interpolates."""
    matrix = _matrix(resize, math.isqrt(table.shape[1] - prefix), grid, table.device)
    with torch.autocast(table.device.type, enabled=False):
        return torch.cat([table[:, :prefix], (matrix @ table[0, prefix:].float())[None].to(table.dtype)], dim=1)


def add_positions(vit: VisionTransformer, tokens: Tensor, resize: Resize, by_product: bool = False) -> Tensor:
    """Patch tokens [B, rows, columns, D] with prefix tokens and positions [B, P + N, D]: timm's, but for the resize.

    Args:
        vit: the model.
        tokens: of its patch embedding.
        resize: of its table.
        by_product: whether the table is resized by `by_matrix`.
    """
    table, own = vit.pos_embed, tuple(tokens.shape[1:3]) == tuple(vit.patch_embed.grid_size)
    plain = type(vit)._pos_embed is VisionTransformer._pos_embed
    if table is None or own or (resize is antialias and not (by_product and plain)):
        embedded: Tensor = vit._pos_embed(tokens)
        return embedded
    grid, prefix = (tokens.shape[1], tokens.shape[2]), prefix_of(vit)
    positions = by_matrix(resize, table, grid, prefix) if by_product else resize(table, grid, prefix)
    tokens_before = [token.expand(len(tokens), -1, -1) for token in (vit.cls_token, vit.reg_token) if token is not None]
    patches = tokens.flatten(1, 2)
    if vit.no_embed_class:
        return torch.cat([*tokens_before, patches + positions], dim=1)
    return torch.cat([*tokens_before, patches], dim=1) + positions
