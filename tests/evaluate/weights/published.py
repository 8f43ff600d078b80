"""Small random models written in the forms in which published weights come."""

import json
import re
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.models import VisionTransformer
from torch import Tensor, nn
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTModel,
)

WIDTH, SIDE, PATCH = 192, 56, 14
MEAN, STD = [0.7, 0.6, 0.5], [0.2, 0.3, 0.4]
HF: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "image_size": SIDE,
    "patch_size": PATCH,
}


def shaken(model: nn.Module) -> Any:
    """The model with every weight away from its init value, in eval mode."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def make_vit(arch: str = "vit_tiny_patch16_224", **kwargs: Any) -> VisionTransformer:
    """A timm model of two blocks, 192 wide, with 3 heads unless said otherwise."""
    fixed = {"depth": 2, "embed_dim": WIDTH, "num_heads": 3, "patch_size": PATCH, "img_size": SIDE}
    return shaken(timm.create_model(arch, num_classes=0, dynamic_img_size=True, **fixed | kwargs))


def hub_state(vit: VisionTransformer) -> dict[str, Tensor]:
    """A model's weights by the names of DINOv2's hub; with registers, the CLS token has a position embedding there."""
    state = {name: value.detach().clone() for name, value in vit.state_dict().items()}
    gated = "Glu" in type(vit.blocks[0].mlp).__name__
    if gated:
        state = {re.sub("mlp.fc2", "mlp.w3", re.sub("mlp.fc1", "mlp.w12", name)): v for name, v in state.items()}
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        position = torch.randn(1, 1, WIDTH)
        state["cls_token"] = state["cls_token"] - position
        state["pos_embed"] = torch.cat([position, state["pos_embed"]], 1)
    return state | {"mask_token": torch.zeros(1, WIDTH)}


def write_timm_folder(vit: VisionTransformer, folder: Path, architecture: str, arguments: dict[str, Any]) -> None:
    """As UNI is published: a .bin in timm's form and timm's config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(vit.state_dict(), folder / "pytorch_model.bin")
    images = {"input_size": [3, SIDE, SIDE], "mean": MEAN, "std": STD}
    config = {"architecture": architecture, "num_classes": 0, "model_args": arguments, "pretrained_cfg": images}
    (folder / "config.json").write_text(json.dumps(config))


def make_hf(kind: str) -> nn.Module:
    """A random model of transformers: `vit` (as Phikon), `dinov2` (Phikon-v2), `swiglu` (Midnight), `registers`."""
    makers: dict[str, Any] = {
        "vit": lambda: ViTModel(ViTConfig(**HF, intermediate_size=4 * WIDTH, layer_norm_eps=1e-3)),
        "dinov2": lambda: Dinov2Model(Dinov2Config(**HF)),
        "swiglu": lambda: Dinov2Model(Dinov2Config(**HF, use_swiglu_ffn=True)),
        "registers": lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**HF, num_register_tokens=4)),
    }
    torch.manual_seed(0)
    return shaken(makers[kind]())


def write_hf_folder(model: Any, folder: Path, shard: str = "5GB", preprocessor: bool = True) -> None:
    """As transformers writes it, with the preprocessor's file."""
    model.save_pretrained(folder, max_shard_size=shard)
    if preprocessor:
        images = {"do_center_crop": True, "crop_size": {"height": 42, "width": 42}, "size": {"shortest_edge": 48}}
        images |= {"image_mean": MEAN, "image_std": STD}
        (folder / "preprocessor_config.json").write_text(json.dumps(images))


def write_file(path: Path, state: dict[str, Tensor]) -> None:
    """A .safetensors or PyTorch file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save(state, path)
