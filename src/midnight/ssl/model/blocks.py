"""timm's transformer block, able to take packed tokens."""

import importlib.util
import os
import shutil
from collections.abc import Sequence
from typing import cast

import torch
from timm.layers import Attention
from timm.models import VisionTransformer
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from midnight.errors import ConfigError
from midnight.ssl.model.attention import packed_attention
from midnight.ssl.model.fused import fused_block
from midnight.ssl.model.packing import Packing
from midnight.ssl.model.residual import Kept, Seen, residual

BACKEND = "inductor"
"""What torch.compile makes code with."""


class PackedBlock(Block):
    """timm's own block, parameters and names alike; given a layout, its input is packed tokens."""

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        layout: Packing | None = None,
        kept: Sequence[Kept | None] = (None, None),
        seen: Sequence[Seen] | None = None,
        needed: Tensor | None = None,
        copy: bool = False,
    ) -> Tensor:
        """Tokens [B, T, D] as in timm; or packed [N, D] with their layout and the samples that keep each branch.

        Or packed, with what each branch sees: then fused, and x is changed in place, or a copy of it (which is needed
        where x is kept to run the block again). The result then has the rows `needed` only, if given.
        """
        if seen is not None:
            lent = copy or isinstance(self, FSDPModule)  # whose hooks give the input out again as their own
            return fused_block(self, x.clone() if lent else x, seen[0], seen[1], needed)
        if layout is None:
            out: Tensor = super().forward(x, attn_mask=attn_mask, is_causal=is_causal)
            return out
        x = residual(x, layout, kept[0], self._attend)
        return residual(x, layout, kept[1], lambda tokens, _: self.ls2(self.mlp(self.norm2(tokens))))

    def _attend(self, tokens: Tensor, layout: Packing) -> Tensor:
        attn = cast(Attention, self.attn)
        scaled: Tensor = self.ls1(packed_attention(attn, self.norm1(tokens), layout))
        return scaled


def drop_rates(vit: VisionTransformer) -> list[tuple[float, float]]:
    """For each block the probability of dropping the attention's and the MLP's residual; 0 outside of training."""

    def rate(path: nn.Module) -> float:
        return float(getattr(path, "drop_prob", 0.0)) if path.training else 0.0

    blocks = (cast(Block, block) for block in vit.blocks)
    return [(rate(block.drop_path1), rate(block.drop_path2)) for block in blocks]


def make_packable(vit: VisionTransformer) -> bool:
    """Let the blocks take packed tokens, in place; False if the model's blocks are not timm's plain ones.

    Only the class of a block changes, so that its state dict, and a model that plain timm builds, stay the same.
    """
    if not all(type(block) in (Block, PackedBlock) and type(block.attn) is Attention for block in vit.blocks):
        return False
    for block in vit.blocks:
        block.__class__ = PackedBlock
    return True


def compile_blocks(vit: VisionTransformer) -> None:
    """Compile each block by itself, in place; parameters keep their names. The first steps take minutes.

    Raises:
        ConfigError: torch can't compile on this machine.
    """
    needed = "triton" if torch.cuda.is_available() else os.environ.get("CXX", "g++")
    found = importlib.util.find_spec(needed) if torch.cuda.is_available() else shutil.which(needed)
    if not found:
        raise ConfigError(f"training.compile: torch.compile needs {needed}, which is not here; install it or say false")
    for block in vit.blocks:
        block.compile(backend=BACKEND, dynamic=False)
