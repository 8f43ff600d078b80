"""AdamW with DINOv2's parameter groups."""

import re
from typing import Any

import torch
from torch import nn

from midnight.config import Optimizer
from midnight.ssl import distributed
from midnight.ssl.model.network import Network
from midnight.ssl.schedules import Values

TOKENS = ("_token", "pos_embed")
STEM = ("mask_token", "cls_token", "reg_token", "pos_embed", "patch_embed", "norm_pre")


def layer_of(name: str, depth: int) -> int:
    """A parameter's layer: 0 for the stem, 1 … depth for the blocks, depth + 1 for the last norm and the heads."""
    if not name.startswith("backbone."):
        return depth + 1
    if block := re.search(r"\.blocks\.(\d+)\.", name):
        return int(block[1]) + 1
    return 0 if any(part in name for part in STEM) else depth + 1


def decays(name: str, parameter: nn.Parameter, tokens: bool) -> bool:
    """Whether weight decay applies: to matrices, and if `tokens` to tokens and position tables [DINOv2].

    Not to biases, norms and LayerScale.
    """
    return tokens if name.endswith(TOKENS) else parameter.ndim > 1


def parameter_groups(student: Network, config: Optimizer) -> list[dict[str, Any]]:
    """Groups of parameters that share `lr_scale`, `decays` and `prototypes`, in a fixed order."""
    depth = len(student.backbone.vit.blocks)
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        scale = config.layer_decay ** (depth + 1 - layer_of(name, depth))
        if ".patch_embed." in name:
            scale *= config.patch_embed_lr
        key = (scale, decays(name, parameter, config.decay_tokens), _is_prototype(name))
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, "decays": decay, "prototypes": prototypes}
        for (scale, decay, prototypes), parameters in groups.items()
    ]


def _is_prototype(name: str) -> bool:
    return name.endswith(("prototypes", "prototype_lengths"))


def build_optimizer(student: Network, config: Optimizer) -> torch.optim.AdamW:
    """AdamW over the student; rates come from `apply_schedule` before each step."""
    fused = next(student.parameters()).is_cuda
    return torch.optim.AdamW(parameter_groups(student, config), lr=0.0, betas=config.betas, fused=fused or None)


def apply_schedule(optimizer: torch.optim.Optimizer, values: Values) -> None:
    """Set each group's learning rate and weight decay; prototypes stand still while they are frozen."""
    for group in optimizer.param_groups:
        frozen = group["prototypes"] and values.frozen_prototypes
        group["lr"] = 0.0 if frozen else values.lr * group["lr_scale"]
        group["weight_decay"] = values.weight_decay if group["decays"] else 0.0


def clip_gradients(student: Network, limit: float) -> torch.Tensor:
    """Clip the gradients of the backbone and of each head by themselves, as DINOv2 does; sharded ones as a whole.

    Returns:
        Norm of all gradients before clipping, float scalar.
    """
    norms = [distributed.whole(nn.utils.clip_grad_norm_(part.parameters(), limit)) for part in student.parts()]
    return torch.stack(norms).norm()
