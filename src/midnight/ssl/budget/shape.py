"""What FLOPs and memory depend on, read off a recipe's networks, which are built without memory for their weights."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from midnight.config import Recipe
from midnight.errors import MidnightError
from midnight.ssl.model.heads import DINOHead
from midnight.ssl.model.network import build_student


@dataclass(frozen=True)
class Shape:
    """Sizes of a backbone and its heads.

    dim: D; prefix: CLS and registers; attention: heads · their width; mlp_in, mlp_out: outputs of an MLP's first
    layer, inputs of its second (half as many in a SwiGLU); *_weights: weights of linear layers, one multiplication
    and addition each per token (stem: per patch); *_parameters: all, of one block, of the backbone, of one head.
    """

    dim: int
    depth: int
    heads: int
    patch: int
    prefix: int
    attention: int
    mlp_in: int
    mlp_out: int
    stem_weights: int
    block_weights: int
    head_weights: int
    ibot_head_weights: int
    block_parameters: int
    backbone_parameters: int
    head_parameters: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Of the student; the teacher has as many."""
        return self.backbone_parameters + sum(self.head_parameters)

    def patches(self, size: int) -> int:
        """Patches of a crop of `size` px."""
        return (size // self.patch) ** 2

    def tokens(self, size: int) -> int:
        """Tokens of a crop of `size` px."""
        return self.prefix + self.patches(size)


def measure(recipe: Recipe) -> Shape:
    """The shape of a recipe's student, built on torch's meta device: in a second, without memory, whatever its size.

    Raises:
        MidnightError: the backbone can't be built, or its blocks are not of the kind that the formulas describe.
    """
    eager = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, compile=False))
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        student = build_student(eager)
    vit = student.backbone.vit
    block: Any = vit.blocks[0]
    try:
        attention = block.attn.num_heads * block.attn.head_dim
        mlp_in, mlp_out = block.mlp.fc1.out_features, block.mlp.fc2.in_features
    except AttributeError as error:
        raise MidnightError(
            f"backbone.arch: no budget for {recipe.backbone.arch!r}, its blocks differ: {error}"
        ) from error
    return Shape(
        dim=vit.embed_dim,
        depth=len(vit.blocks),
        heads=block.attn.num_heads,
        patch=student.backbone.patch_size,
        prefix=vit.num_prefix_tokens,
        attention=attention,
        mlp_in=mlp_in,
        mlp_out=mlp_out,
        stem_weights=vit.patch_embed.proj.weight.numel(),
        block_weights=linear_weights(block),
        head_weights=_head_weights(student.dino_head),
        ibot_head_weights=_head_weights(student.ibot_head),
        block_parameters=count(block.parameters()),
        backbone_parameters=count(student.backbone.parameters()),
        head_parameters=tuple(count(head.parameters()) for head in student.parts()[1:]),
    )


def _head_weights(head: DINOHead) -> int:
    return linear_weights(head) + head.prototypes.numel()


def linear_weights(module: nn.Module) -> int:
    """Weights of the linear layers, biases not counted."""
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def count(parameters: Iterable[nn.Parameter]) -> int:
    """How many numbers."""
    return sum(parameter.numel() for parameter in parameters)
