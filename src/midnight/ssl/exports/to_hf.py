"""Hugging Face's folder: `Dinov2Model.from_pretrained(FOLDER)`, or `Dinov2WithRegistersModel` with registers.

The names are those of the files on the hub, which transformers converts where it has renamed layers since.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.layers import GluMlp, Mlp
from timm.models import VisionTransformer
from torch import Tensor, nn

from midnight.atomic import write_json
from midnight.errors import MidnightError
from midnight.ssl.exports.model_folder import HEADS, save_weights
from midnight.ssl.model.weight_files import State, read_weights

BLOCK_NAMES = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
SWIGLU_NAMES = {"mlp.fc1": "mlp.weights_in", "mlp.fc2": "mlp.weights_out"}
STEM_NAMES = {"patch_embed.proj": "embeddings.patch_embeddings.projection", "norm": "layernorm"}
QKV = ("query", "key", "value")
KNOWN = {"cls_token", "reg_token", "pos_embed", *STEM_NAMES, *BLOCK_NAMES, "attn.qkv", "ls1", "ls2"}


def write_hf(vit: VisionTransformer, card: dict[str, Any], run: Path, output: Path) -> None:
    """Write model.safetensors, config.json and preprocessor_config.json.

    The mask token comes from the run's heads.safetensors where it has one; it is zero otherwise.

    Raises:
        MidnightError: Dinov2 has no such model, or the folder can't be written.
    """
    config = hf_config(vit, card)
    save_weights(output / "model.safetensors", hf_state(vit, read_mask_token(run, vit.embed_dim)))
    write_json(output / "config.json", config)
    write_json(output / "preprocessor_config.json", preprocessor(card))


def read_mask_token(run: Path, dim: int) -> Tensor:
    """The teacher's mask token float32 [D] of a run's folder; zeros where the run left no heads (random init)."""
    path = run / HEADS
    if not path.is_file():
        return torch.zeros(dim)
    return read_weights(path).get("backbone.mask_token", torch.zeros(dim))


def hf_config(vit: VisionTransformer, card: Mapping[str, Any]) -> dict[str, Any]:
    """The content of config.json.

    Raises:
        MidnightError: the model has a part that Dinov2 lacks, or a width that it can't have; names it.
    """
    check_parts(vit, card["arch"])
    kind = ("Dinov2WithRegistersModel", "dinov2_with_registers") if vit.num_reg_tokens else ("Dinov2Model", "dinov2")
    block: Any = vit.blocks[0]
    registers = {"num_register_tokens": vit.num_reg_tokens} if vit.num_reg_tokens else {}
    return {
        "architectures": [kind[0]],
        "model_type": kind[1],
        "hidden_size": vit.embed_dim,
        "num_hidden_layers": len(vit.blocks),
        "num_attention_heads": block.attn.num_heads,
        "mlp_ratio": mlp_ratio(block.mlp, vit.embed_dim),
        "use_swiglu_ffn": isinstance(block.mlp, GluMlp),
        "hidden_act": "gelu",
        "qkv_bias": block.attn.qkv.bias is not None,
        "layer_norm_eps": vit.norm.eps,
        "layerscale_value": 1.0,
        "image_size": vit.patch_embed.img_size[0],
        "patch_size": vit.patch_embed.patch_size[0],
        "num_channels": 3,
        **registers,
        "torch_dtype": "float32",
    }


def check_parts(vit: VisionTransformer, arch: str) -> None:
    """Check that each part of the model has its like in Dinov2.

    Raises:
        MidnightError: one has not; names it.
    """
    names = [re.sub(r"^blocks\.\d+\.", "", name) for name in vit.state_dict()]
    surplus = sorted({name.rpartition(".")[0] or name for name in names} - KNOWN)
    block: Any = vit.blocks[0]
    plain = type(block.mlp) is Mlp and isinstance(block.mlp.act, nn.GELU)
    gated = type(block.mlp) is GluMlp and isinstance(block.mlp.act, nn.SiLU) and not block.mlp.gate_last
    if not (plain or gated) or not isinstance(vit.norm, nn.LayerNorm):
        surplus.append("an MLP or a norm of another kind")
    if surplus:
        raise MidnightError(f"{arch}: Hugging Face's Dinov2 has no {', '.join(surplus)}; use --to timm")


def mlp_ratio(mlp: Mlp | GluMlp, dim: int) -> int:
    """The whole number from which Dinov2 computes this MLP's width: of a SwiGLU 2/3 of it, rounded up to eights.

    Raises:
        MidnightError: there is none.
    """
    gated, width = isinstance(mlp, GluMlp), int(mlp.fc2.weight.shape[1])
    for ratio in range(1, 2 * width // dim + 2):
        if width == ((int(dim * ratio * 2 / 3) + 7) // 8 * 8 if gated else dim * ratio):
            return ratio
    raise MidnightError(f"an MLP of width {width} for {dim}: Dinov2 takes whole ratios only; use --to timm")


def hf_state(vit: VisionTransformer, mask_token: Tensor) -> State:
    """The model's weights by Dinov2's names.

    Dinov2 adds a position embedding to CLS and patches but not to registers; timm's models with registers add none
    to CLS either. What a prefix token gets in timm and not there becomes part of the token, the outputs are equal.
    """
    source = {name: value.detach() for name, value in vit.state_dict().items()}
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    # where timm adds no positions (pos_embed: none), zeros add nothing either
    table = source.get("pos_embed", torch.zeros(1, prefix + vit.patch_embed.num_patches, vit.embed_dim))
    positions, patches = table[:, :prefix], table[:, prefix:]
    cls_position = positions[:, :1] if prefix else torch.zeros_like(source["cls_token"])
    state = {
        "embeddings.cls_token": source["cls_token"],
        "embeddings.mask_token": mask_token.reshape(1, -1),
        "embeddings.position_embeddings": torch.cat([cls_position, patches], dim=1),
    }
    if vit.num_reg_tokens:
        state["embeddings.register_tokens"] = source["reg_token"] + (positions[:, 1:] if prefix else 0)
    for before, after in STEM_NAMES.items():
        state |= renamed(source, before, after)
    for index, block in enumerate(vit.blocks):
        state |= {f"encoder.layer.{index}.{name}": value for name, value in block_state(block).items()}
    return state


def block_state(block: Any) -> State:
    """One block's weights by Dinov2's names; without LayerScale its factors are 1."""
    source = {name: value.detach() for name, value in block.state_dict().items()}
    names = BLOCK_NAMES | (SWIGLU_NAMES if isinstance(block.mlp, GluMlp) else {})
    state: State = {}
    for before, after in names.items():
        state |= renamed(source, before, after)
    for kind, value in renamed(source, "attn.qkv", "").items():
        state |= {f"attention.attention.{part}{kind}": item for part, item in zip(QKV, value.chunk(3), strict=True)}
    for number in (1, 2):
        state[f"layer_scale{number}.lambda1"] = source.get(f"ls{number}.gamma", torch.ones(len(source["norm1.weight"])))
    return state


def renamed(source: State, before: str, after: str) -> State:
    """The weight and bias of a layer under another name."""
    kinds = [kind for kind in (".weight", ".bias") if before + kind in source]
    return {after + kind: source[before + kind] for kind in kinds}


def preprocessor(card: Mapping[str, Any]) -> dict[str, Any]:
    """The content of preprocessor_config.json: the shorter side to the model's size, centre crop, normalisation."""
    size = card["img_size"]
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(card["mean"]),
        "image_std": list(card["std"]),
    }
