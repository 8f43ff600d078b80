"""What the files beside weights say about a model, and what the tensors themselves say."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from midnight.errors import MidnightError

Triple = tuple[float, float, float]
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1536: 24}
"""Width: attention heads, where all models in use have as many (1280 has 16 or 20)."""


@dataclass(frozen=True)
class Facts:
    """What no tensor shows, as far as the files beside the weights tell it.

    Attributes:
        arch: timm's name of the architecture.
        heads: attention heads.
        eps: of the layer norms.
        activation: of the MLPs, by timm's name.
        mean: normalisation of images in 0–1.
        std: normalisation.
        size: input size, px.
    """

    arch: str | None = None
    heads: int | None = None
    eps: float | None = None
    activation: str | None = None
    mean: Triple | None = None
    std: Triple | None = None
    size: int | None = None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object.

    Raises:
        MidnightError: it can't be read or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MidnightError(f"{path}: can't be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise MidnightError(f"{path}: must be one JSON object, found {type(value).__name__}")
    return value


def read_facts(folder: Path | None) -> Facts:
    """What config.json (timm's or Hugging Face's) and preprocessor_config.json of a folder say.

    Raises:
        MidnightError: a file of these is damaged.
    """
    if folder is None:
        return Facts()
    read = {name: read_object(folder / name) for name in (CONFIG, PREPROCESSOR) if (folder / name).is_file()}
    config, images = read.get(CONFIG, {}), read.get(PREPROCESSOR, {})
    try:
        return _of_timm(config) if "architecture" in config else _of_transformers(config, images)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise MidnightError(f"{folder}: a value of {' or '.join(read)} is of a wrong kind: {error}") from error


def _of_timm(config: Mapping[str, Any]) -> Facts:
    arguments = config.get("model_args") or {}
    images = config.get("pretrained_cfg") or config  # the newest form, or the first one
    size = images.get("input_size")
    return Facts(
        arch=str(config["architecture"]),
        heads=arguments.get("num_heads"),
        mean=_triple(images.get("mean")),
        std=_triple(images.get("std")),
        size=int(size[-1]) if size else None,
    )


def _of_transformers(config: Mapping[str, Any], images: Mapping[str, Any]) -> Facts:
    """Hugging Face's ViT, Dinov2 and what is written like them."""
    heads, eps = config.get("num_attention_heads"), config.get("layer_norm_eps")
    activation = ACTIVATIONS.get(str(config.get("hidden_act")))
    return Facts(
        heads=None if heads is None else int(heads),
        eps=None if eps is None else float(eps),
        activation=activation,
        mean=_triple(images.get("image_mean")),
        std=_triple(images.get("image_std")),
        size=_side(images.get("crop_size") if images.get("do_center_crop", True) else None)
        or _side(images.get("size"))
        or _side(config.get("image_size")),
    )


ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}


def _side(value: Any) -> int | None:
    """An image size in any of the forms in which Hugging Face writes it."""
    if isinstance(value, Mapping):
        value = value.get("height") or value.get("shortest_edge")
    return None if value is None else int(value)


def _triple(value: Any) -> Triple | None:
    if value is None:
        return None
    red, green, blue = (float(item) for item in value)
    return red, green, blue


def shape_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of timm's VisionTransformer that tensors show by their names and shapes; heads are not.

    Args:
        state: weights by timm's names, see `midnight.ssl.model.weights.to_timm`.

    Raises:
        MidnightError: it is no plain vision transformer with a CLS token.
    """
    try:
        width, depth = state["cls_token"].shape[-1], _depth(state)
        patch, hidden = state["patch_embed.proj.weight"].shape[-1], state["blocks.0.mlp.fc1.weight"].shape[0]
        registers = state["reg_token"].shape[1] if "reg_token" in state else 0
        side, prefixed = _grid(state["pos_embed"].shape[1], 1 + registers)
        gated = hidden == 2 * state["blocks.0.mlp.fc2.weight"].shape[1]
    except (KeyError, IndexError, ValueError) as error:
        raise MidnightError(f"no plain vision transformer: {error}") from error
    return {
        "img_size": side * patch,
        "patch_size": patch,
        "embed_dim": width,
        "depth": depth,
        "mlp_ratio": (hidden + 0.5) / width,  # timm rounds down
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "qk_norm": "blocks.0.attn.q_norm.weight" in state,
        "init_values": 1.0 if "blocks.0.ls1.gamma" in state else None,
        "no_embed_class": not prefixed,
        "reg_tokens": registers,
        "pre_norm": "norm_pre.weight" in state,
        "gated": gated,
    }


def _depth(state: Mapping[str, Tensor]) -> int:
    numbers = {int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))}
    if numbers != set(range(len(numbers))) or not numbers:
        raise ValueError(f"blocks {sorted(numbers)}")
    return len(numbers)


def _grid(positions: int, prefix: int) -> tuple[int, bool]:
    """The side of the grid of patches, and whether the prefix tokens have positions too."""
    for count, prefixed in ((positions - prefix, True), (positions, False)):
        if count > 0 and math.isqrt(count) ** 2 == count:
            return math.isqrt(count), prefixed
    raise ValueError(f"{positions} position embeddings are no square grid")
