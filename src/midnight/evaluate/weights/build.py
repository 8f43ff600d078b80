"""A timm vision transformer for given tensors: their shapes say most, files and the entry the rest."""

import functools
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.layers import SwiGLUPacked, get_act_layer
from timm.models import VisionTransformer
from torch import Tensor, nn

from midnight.errors import MidnightError
from midnight.evaluate.weights.facts import HEADS, Facts, shape_of
from midnight.ssl.model.weights import describe_misfit

SEED = 0
"""Of random inits."""


def arguments_of(
    state: Mapping[str, Tensor], facts: Facts, arch: str | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of `VisionTransformer` for these weights.

    Args:
        state: weights by timm's names.
        facts: what the files beside them say.
        arch: timm's name as the entry gives it; it goes before the files.
        given: further arguments, which go before all else.

    Raises:
        MidnightError: they are of no plain vision transformer, or the number of heads can't be told.
    """
    shape = shape_of(state)
    gated = shape.pop("gated")
    named = _named(arch or facts.arch, shape["embed_dim"], strict=arch is not None)
    heads = given.get("num_heads") or (None if arch else facts.heads) or named.get("num_heads")
    heads = heads or HEADS.get(shape["embed_dim"])
    if not heads:
        raise MidnightError(
            f"the number of attention heads of a model {shape['embed_dim']} wide can't be told; name its timm "
            "architecture (arch: vit_huge_patch14_224) or kwargs: {num_heads: 16}"
        )
    eps = facts.eps or named.get("eps") or 1e-6
    activation = facts.activation or named.get("activation") or "gelu"
    layers = {
        "norm_layer": functools.partial(nn.LayerNorm, eps=eps),
        "act_layer": nn.SiLU if gated else get_act_layer(activation) if isinstance(activation, str) else activation,
    }
    gate = {"mlp_layer": SwiGLUPacked} if gated else {}
    fixed = {"num_classes": 0, "dynamic_img_size": True, "num_heads": heads}
    return {**shape, **fixed, **layers, **gate, **given}


def _named(arch: str | None, width: int, strict: bool) -> dict[str, Any]:
    """What timm's architecture of this name says that tensors don't; nothing where it is unknown or has another width.

    Raises:
        MidnightError: the same, where a person named it (`strict`).
    """
    if arch is None:
        return {}
    try:
        with torch.device("meta"):
            vit = timm.create_model(arch, pretrained=False, num_classes=0)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        if strict:
            raise MidnightError(f"arch: timm has no {arch!r}: {' '.join(str(error).split())[:200]}") from error
        return {}
    if not isinstance(vit, VisionTransformer) or vit.embed_dim != width:
        if strict:
            has = (
                f"is {getattr(vit, 'embed_dim', '?')} wide" if isinstance(vit, VisionTransformer) else "is no plain ViT"
            )
            raise MidnightError(f"arch: {arch} {has}, the weights are of a vision transformer {width} wide")
        return {}
    block: Any = vit.blocks[0]
    return {"num_heads": block.attn.num_heads, "eps": vit.norm.eps, "activation": type(block.mlp.act)}


def build_loaded(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> VisionTransformer:
    """The model with these weights.

    Raises:
        MidnightError: they don't fit; names what is missing, unknown or of another shape.
    """
    with torch.device("meta"):  # without the time and memory of an init
        vit = _construct(arguments)
    if problems := describe_misfit(vit.state_dict(), state):
        raise MidnightError(f"no plain vision transformer: {problems}")
    vit.load_state_dict(dict(state), assign=True)
    return vit


def build_random(arguments: Mapping[str, Any]) -> VisionTransformer:
    """The same architecture at random init, from a fixed seed.

    LayerScale starts at 1: with timm's 1e-5 the CLS token would hardly see the image.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return _construct(arguments)


def _construct(arguments: Mapping[str, Any]) -> VisionTransformer:
    try:
        return VisionTransformer(**arguments)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        raise MidnightError(f"timm can't build it: {' '.join(str(error).split())[:200]}") from error
