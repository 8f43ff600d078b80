"""Vision transformers without a position table (timm's Eva class: DINOv3, EVA-02), which turn queries and keys instead.

Their tensors do not say how, so timm builds them by name.
"""

from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.models.eva import Eva
from torch import Tensor

from midnight.errors import MidnightError
from midnight.evaluate.weights.build import SEED
from midnight.ssl.model.weights import describe_misfit


def is_rotary(state: Mapping[str, Tensor]) -> bool:
    """Whether weights are of a vision transformer with a CLS token and without a position table."""
    return "cls_token" in state and "pos_embed" not in state


def build_rotary(state: Mapping[str, Tensor], arch: str | None, given: Mapping[str, Any], random: bool) -> Eva:
    """The model with these weights, or at random init with LayerScale 1.

    Args:
        state: weights by timm's names.
        arch: timm's name of the architecture, of the entry or of the folder.
        given: further arguments of it.
        random: leave the weights out.

    Raises:
        MidnightError: nobody names the architecture, it is another, or the weights don't fit it.
    """
    if arch is None:
        raise MidnightError(
            "has no position table, so it has rotary positions, which tensors do not describe; name its timm "
            "architecture (arch: vit_base_patch16_dinov3)"
        )
    scale = {"init_values": 1.0} if random and any(name.endswith("gamma_1") for name in state) else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        vit = _made(arch, {"dynamic_img_size": True, **given, **scale})
    if not isinstance(vit, Eva) or vit.cls_token is None:
        raise MidnightError(f"arch: {arch} has no rotary positions or no CLS token, and the weights have no table")
    if problems := describe_misfit(vit.state_dict(), state):
        raise MidnightError(f"no {arch}: {problems}")
    if not random:
        vit.load_state_dict(dict(state))
    return vit


def _made(arch: str, arguments: Mapping[str, Any]) -> torch.nn.Module:
    try:
        return timm.create_model(arch, pretrained=False, num_classes=0, **arguments)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise MidnightError(f"arch: timm can't build {arch!r}: {' '.join(str(error).split())[:200]}") from error
