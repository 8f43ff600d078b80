"""Where a backbone's weights come from, in the key layouts of DINOv2's hub, of timm and of Hugging Face."""

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from timm.models import VisionTransformer
from torch import Tensor

from midnight.config import Backbone
from midnight.errors import ConfigError, MidnightError, ServiceError
from midnight.ssl.checkpoint.init_file import init_file
from midnight.ssl.model.backbone import MaskedViT, build_vit
from midnight.ssl.model.network import Network
from midnight.ssl.model.positions import Resize, antialias, prefix_of
from midnight.ssl.model.weight_files import State, read_weights

log = logging.getLogger(__name__)

PREFIXES = ("module.", "backbone.", "dinov2.", "dinov2_with_registers.", "vit.")
HEADS = ("dino_head.", "ibot_head.", "head.", "classifier.", "linear_head.", "pooler.")
HF_NAMES = (
    (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^(?:encoder\.layer|layers)\.", "blocks."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.q_proj\.", ".attn.query."),
    (r"\.attention\.k_proj\.", ".attn.key."),
    (r"\.attention\.v_proj\.", ".attn.value."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),  # these four: ViT, as Phikon has it
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.(?:weights_out|down_proj)\.", ".mlp.w3."),
)
HUB_NAMES = (
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # training checkpoints keep blocks in chunks
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"^register_tokens$", "reg_token"),
)


def layout_of(state: State) -> str:
    """`hf`, `hub` or `timm`, told by the names of keys."""
    if any(name.startswith(("embeddings.", "encoder.layer.")) for name in state):
        return "hf"
    return "hub" if {"mask_token", "register_tokens"} & set(state) else "timm"


def to_timm(state: State) -> tuple[State, Tensor | None]:
    """Weights by timm's names in float32, and the mask token [D] where the file has one.

    Names are mapped by rules, never by order; what no rule knows keeps its name and is reported when loading.

    Raises:
        MidnightError: a layout that is known and not read.
    """
    state = {_strip(name): value.float() for name, value in state.items()}
    state = {name: value for name, value in state.items() if not name.startswith(HEADS)}
    if layout_of(state) == "hf":
        state = _pack({_rename(name, HF_NAMES): value for name, value in state.items()})
    mask_token = state.pop("mask_token", None)
    registers = "register_tokens" in state
    state = {_rename(name, HUB_NAMES): value for name, value in state.items()}
    if registers and "pos_embed" not in state:
        raise MidnightError("is DINOv3 by transformers' names, which are not read; take timm's file of this model")
    if registers:
        # With registers timm adds no position embedding to the CLS token: it is part of the token.
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    return state, None if mask_token is None else mask_token.flatten()


def _strip(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _rename(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _pack(state: State) -> State:
    """Join Hugging Face's query, key and value, and the gate and value of a SwiGLU, each to one layer."""
    out = dict(state)
    for parts, whole in ((("attn.query", "attn.key", "attn.value"), "attn.qkv"), (_SWIGLU, "mlp.w12")):
        for name in [name for name in state if f".{parts[0]}." in name]:
            names = [name.replace(parts[0], part) for part in parts]
            if all(part in out for part in names):
                out[name.replace(parts[0], whole)] = torch.cat([out.pop(part) for part in names])
    return out


_SWIGLU = ("mlp.gate_proj", "mlp.up_proj")


def load_backbone(model: MaskedViT, state: State, source: str) -> None:
    """Load weights of any of the three layouts; position tables are resized to the model's grid,

    as the model itself resizes them.

    Raises:
        MidnightError: a weight is missing, unknown or of another shape; names the file and the keys.
    """
    weights, mask_token = to_timm(state)
    if "pos_embed" in weights:
        weights["pos_embed"] = interpolate_positions(model.vit, weights["pos_embed"], model.resize)
    problems = describe_misfit(model.vit.state_dict(), weights)
    if problems:
        raise MidnightError(f"{source}: does not fit the recipe's backbone: {problems}")
    model.vit.load_state_dict(weights)
    if mask_token is not None:
        model.mask_token.data.copy_(mask_token)


def misfit(path: Path, backbone: Backbone, img_size: int) -> str:
    """Why a file does not fit a recipe's backbone, in words; "" where it does. No weight is computed or copied.

    Raises:
        MidnightError: the file can't be read, or the backbone can't be built.
    """
    with torch.device("meta"):
        vit = build_vit(backbone, img_size)
    weights, _ = to_timm({name: value.to("meta") for name, value in read_weights(path).items()})
    if "pos_embed" in weights:
        weights["pos_embed"] = interpolate_positions(vit, weights["pos_embed"])
    return describe_misfit(vit.state_dict(), weights)


def describe_misfit(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """Which weights are missing, unknown or of another shape, in words; empty where they fit a model's."""
    missing, unknown = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    shapes = [
        f"{name} {list(weights[name].shape)} for {list(value.shape)}"
        for name, value in expected.items()
        if name in weights and weights[name].shape != value.shape
    ]
    return "; ".join(
        f"{what} {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        for what, names in (("missing", missing), ("unknown", unknown), ("other shape", shapes))
        if names
    )


def interpolate_positions(vit: VisionTransformer, embedding: Tensor, resize: Resize = antialias) -> Tensor:
    """Position embeddings [1, P + N, D] for the model's grid; P prefix tokens stay as they are.

    What is no square grid comes back as it is.
    """
    prefix = prefix_of(vit)
    count = embedding.shape[1] - prefix
    if embedding.ndim != 3 or count < 1 or math.isqrt(count) ** 2 != count:
        return embedding
    rows, columns = vit.patch_embed.grid_size
    return resize(embedding, (rows, columns), prefix)


def initialise(model: MaskedViT, backbone: Backbone, img_size: int, init_from: Path | None) -> None:
    """Give the backbone the weights that `backbone.init` names; `random` leaves it as it is.

    Args:
        model: at random init.
        backbone: the recipe's.
        img_size: side of a global crop, px.
        init_from: folder of the run that `init: run:NAME` names.

    Raises:
        MidnightError: the weights are not there, can't be fetched or don't fit.
    """
    kind, _, name = backbone.init.partition(":")
    if backbone.init == "random":
        return
    if kind == "run":
        if init_from is None:
            raise ConfigError(f"backbone.init: run:{name} needs that run's folder; add the run {name!r} to `runs`")
        path = init_from / "teacher.safetensors"
        load_backbone(model, read_weights(path), str(path))
    elif backbone.init == "pretrained":
        load_backbone(model, download(backbone, img_size), f"timm's weights of {backbone.arch}")
    elif file := init_file(backbone.init):
        load_backbone(model, read_weights(file), backbone.init)
    log.info("backbone starts from %s", backbone.init)


def download(backbone: Backbone, img_size: int) -> State:
    """timm's published weights of the architecture, with the position table of the size that it was trained at.

    Raises:
        ServiceError: the hub does not answer.
    """
    try:
        published = timm.get_pretrained_cfg(backbone.arch)
        size = published.input_size[-1] if published else img_size
        return dict(build_vit(backbone, size, pretrained=True).state_dict())
    except (OSError, ConfigError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ServiceError(
            f"backbone.init: weights of {backbone.arch!r} can't be fetched ({reason}); "
            "download them elsewhere and name the file as backbone.init"
        ) from error


def load_heads(student: Network, init_from: Path | None) -> None:
    """Let the heads and the mask token go on from a parent run, where it left them and they fit; else log."""
    if init_from is None:
        return
    path = init_from / "heads.safetensors"
    if not path.is_file():
        log.warning("%s is not there: the heads start at random", path)
        return
    heads, expected = read_weights(path), student.state_dict()
    own = {name for name in expected if not name.startswith("backbone.vit.")}
    if set(heads) != own or any(expected[name].shape != value.shape for name, value in heads.items()):
        log.warning("%s does not fit the recipe's heads: they start at random", path)
        return
    student.load_state_dict(heads, strict=False)
