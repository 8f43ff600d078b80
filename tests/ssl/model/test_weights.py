import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from midnight.config import Backbone
from midnight.errors import ConfigError, MidnightError
from midnight.ssl.model.backbone import MaskedViT, build_vit
from midnight.ssl.model.weight_files import read_weights
from midnight.ssl.model.weights import initialise, layout_of, load_backbone, to_timm

SHAPE: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 2}
PLAIN = Backbone(arch="vit_small_patch14_dinov2", kwargs=SHAPE)
REGISTERS = Backbone(arch="vit_small_patch14_reg4_dinov2", kwargs=SHAPE)
GIANT = Backbone(arch="vit_giant_patch14_dinov2", kwargs=SHAPE)
GIANT_REGISTERS = Backbone(arch="vit_giant_patch14_reg4_dinov2", kwargs=SHAPE)


def hf_model(registers: bool, swiglu: bool) -> torch.nn.Module:
    """A random Dinov2 of Hugging Face, with every weight away from its init value."""
    values = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "use_swiglu_ffn": swiglu,
    }
    torch.manual_seed(0)
    if registers:
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=4, **values))
    else:
        model = Dinov2Model(Dinov2Config(**values))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names in the files that Hugging Face's hub serves, which differ from those of the newest library."""
    out = {}
    for name, value in state.items():
        name = re.sub(r"attention\.([qkv])_proj", lambda m: f"attention.attention.{LONG[m[1]]}", name)
        out[name.replace("attention.o_proj", "attention.output.dense")] = value
    for name in [name for name in out if ".gate_proj." in name]:
        joined = torch.cat([out.pop(name), out.pop(name.replace("gate", "up"))])
        out[name.replace("gate_proj", "weights_in")] = joined
    return {name.replace("down_proj", "weights_out"): value for name, value in out.items()}


LONG = {"q": "query", "k": "key", "v": "value"}


def hub_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's names (without registers) as those of DINOv2's hub."""
    renamed = {
        re.sub(r"mlp\.fc1", "mlp.w12", re.sub(r"mlp\.fc2", "mlp.w3", name)): value for name, value in state.items()
    }
    return renamed | {"mask_token": torch.randn(1, 24)}


def randomised(backbone: Backbone, seed: int = 1) -> MaskedViT:
    torch.manual_seed(seed)
    model = MaskedViT(build_vit(backbone, 56)).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("form", [dict, published])
@pytest.mark.parametrize(
    ("backbone", "registers", "swiglu"),
    [(PLAIN, False, False), (REGISTERS, True, False), (GIANT, False, True), (GIANT_REGISTERS, True, True)],
)
def test_hugging_face_gives_the_same_outputs(backbone: Backbone, registers: bool, swiglu: bool, form: Any) -> None:
    source = hf_model(registers, swiglu)
    state = form(dict(source.state_dict()))
    assert layout_of(state) == "hf"
    if swiglu:  # HF rounds the width of a SwiGLU: 24 · 4 · 2/3 → 64; timm is told the same
        backbone = Backbone(arch=backbone.arch, kwargs=SHAPE | {"mlp_ratio": 2 * 64 / 24 + 1e-6})
    model = randomised(backbone)
    load_backbone(model, state, "test")
    images = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        expected = source(images).last_hidden_state
        features = model(images)
    tokens = torch.cat([features.cls[:, None], features.registers, features.patches], dim=1)
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.mask_token, source.embeddings.mask_token[0])


SIZES = {"small": (384, 6), "base": (768, 12), "large": (1024, 16), "giant": (1536, 24)}
EVERY = [(size, registers, patch) for size in SIZES for registers in (0, 4) for patch in (14, 8, 16)]


def real_width(size: str, registers: int, patch: int) -> Backbone:
    """A listed backbone with all its own sizes but for the depth, which is 1."""
    arch = f"vit_{size}_patch14{'_reg4' if registers else ''}_dinov2"
    return Backbone(arch=arch, kwargs={"depth": 1, "patch_size": patch})


def hf_twin(size: str, registers: int, patch: int, image: int) -> torch.nn.Module:
    """Hugging Face's model of the same sizes at its own random init."""
    dim, heads = SIZES[size]
    values = {"hidden_size": dim, "num_hidden_layers": 1, "num_attention_heads": heads, "image_size": image}
    values |= {"patch_size": patch, "use_swiglu_ffn": size == "giant"}
    torch.manual_seed(0)
    if registers:
        return Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=4, **values)).eval()
    return Dinov2Model(Dinov2Config(**values)).eval()


@pytest.mark.parametrize(("size", "registers", "patch"), EVERY)
def test_every_backbone_starts_from_hugging_face(size: str, registers: int, patch: int) -> None:
    source = hf_twin(size, registers, patch, 4 * patch)
    model = MaskedViT(build_vit(real_width(size, registers, patch), 4 * patch)).eval()
    load_backbone(model, published(dict(source.state_dict())), "test")
    images = torch.randn(1, 3, 4 * patch, 4 * patch)
    with torch.no_grad():
        expected, features = source(images).last_hidden_state, model(images)
    tokens = torch.cat([features.cls[:, None], features.registers, features.patches], dim=1)
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("size", "registers", "patch"), EVERY)
def test_every_backbone_starts_from_timm(size: str, registers: int, patch: int, tmp_path: Path) -> None:
    torch.manual_seed(1)
    backbone = real_width(size, registers, patch)
    source = timm.create_model(backbone.arch, num_classes=0, img_size=4 * patch, **backbone.kwargs)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    model = MaskedViT(build_vit(backbone, 4 * patch))
    load_backbone(model, read_weights(tmp_path / "w.safetensors"), "test")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.vit.state_dict().items())


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize(("file_size", "size"), [(518, 224), (224, 392), (98, 112), (56, 56)])
def test_positions_of_a_hub_file_fit_any_size(file_size: int, size: int, registers: int) -> None:
    backbone = REGISTERS if registers else PLAIN
    side = torch.linspace(-1, 1, file_size // 14)
    ramp = (side[:, None] + 2 * side[None]).reshape(1, -1, 1).expand(1, -1, 24)
    state = hub_names(dict(MaskedViT(build_vit(backbone, file_size)).vit.state_dict()))
    state["cls_token"], state["pos_embed"] = torch.ones(1, 1, 24), torch.cat([torch.full((1, 1, 24), 5.0), ramp], 1)
    if registers:
        state["register_tokens"] = state.pop("reg_token")
    model = MaskedViT(build_vit(backbone, size))
    load_backbone(model, state, "test")
    positions, prefix = model.vit.pos_embed.detach(), 0 if registers else 1
    new = torch.linspace(-1, 1, size // 14)
    expected = new[:, None] + 2 * new[None]
    found = positions[0, prefix:, 0].unflatten(0, (size // 14, size // 14))
    torch.testing.assert_close(found[2:-2, 2:-2], expected[2:-2, 2:-2], atol=0.12, rtol=0)
    first = model.vit.cls_token.detach() + (0 if registers else positions[:, :1])
    assert torch.equal(first, torch.full((1, 1, 24), 6.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_files_in_half_precision_are_read_as_float32(dtype: torch.dtype) -> None:
    source = hf_model(True, False)
    state = {name: value.to(dtype) for name, value in published(dict(source.state_dict())).items()}
    model = randomised(REGISTERS)
    load_backbone(model, state, "test")
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    cls, positions = state["embeddings.cls_token"].float(), state["embeddings.position_embeddings"].float()
    assert torch.equal(model.vit.cls_token, cls + positions[:, :1])


def test_dino_files_of_patch_8_fit_kaiko_fm() -> None:
    """facebookresearch/dino's files have timm's names, without LayerScale and mask token."""
    backbone = Backbone(arch="vit_base_patch8_224", kwargs=SHAPE)
    source, model = randomised(backbone, 1), randomised(backbone, 2)
    state = {f"module.backbone.{name}": value for name, value in source.vit.state_dict().items()}
    load_backbone(model, state | {"head.mlp.0.weight": torch.zeros(2, 2)}, "test")
    assert all(torch.equal(value, source.vit.state_dict()[name]) for name, value in model.vit.state_dict().items())


@pytest.mark.parametrize("backbone", [PLAIN, GIANT])
def test_hub_names_give_the_same_weights(backbone: Backbone) -> None:
    source, model = randomised(backbone, 1), randomised(backbone, 2)
    state = hub_names(source.vit.state_dict())
    assert layout_of(state) == "hub"
    load_backbone(model, state, "test")
    assert all(torch.equal(value, source.vit.state_dict()[name]) for name, value in model.vit.state_dict().items())
    assert torch.equal(model.mask_token, state["mask_token"][0])


def test_hub_registers_move_the_position_of_the_cls_token_into_it() -> None:
    source = randomised(REGISTERS, 1)
    state = hub_names(source.vit.state_dict())
    shift = torch.randn(1, 1, 24)
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.cat([shift, state["pos_embed"]], dim=1)
    state["cls_token"] = state["cls_token"] - shift
    model = randomised(REGISTERS, 2)
    load_backbone(model, state, "test")
    images = torch.randn(1, 3, 56, 56)
    torch.testing.assert_close(model(images).cls, source(images).cls, atol=1e-5, rtol=1e-5)


def test_a_training_checkpoint_of_dinov2_is_unwrapped(tmp_path: Path) -> None:
    source, model = randomised(PLAIN, 1), randomised(PLAIN, 2)
    chunked = {re.sub(r"blocks\.(\d+)", r"blocks.0.\1", k): v for k, v in hub_names(source.vit.state_dict()).items()}
    state = {f"backbone.{name}": value for name, value in chunked.items()} | {"dino_head.mlp.0.bias": torch.zeros(3)}
    torch.save({"teacher": state}, tmp_path / "teacher_checkpoint.pth")
    load_backbone(model, read_weights(tmp_path / "teacher_checkpoint.pth"), "test")
    assert torch.equal(model.vit.blocks[1].mlp.fc1.weight, source.vit.blocks[1].mlp.fc1.weight)


def test_timm_names_stay_and_positions_are_resampled() -> None:
    source = randomised(PLAIN, 1)
    larger = MaskedViT(build_vit(PLAIN, 98))
    load_backbone(larger, dict(source.vit.state_dict()), "test")
    assert larger.vit.pos_embed.shape == (1, 50, 24)
    torch.testing.assert_close(larger.vit.pos_embed[:, 0], source.vit.pos_embed[:, 0])
    old, new = source.vit.pos_embed[:, 1:].mean(1), larger.vit.pos_embed[:, 1:].mean(1)
    torch.testing.assert_close(new, old, atol=0.02, rtol=0)


def test_what_does_not_fit_names_file_and_keys() -> None:
    state = dict(randomised(PLAIN).vit.state_dict())
    state["surplus"] = state.pop("norm.weight")
    state["blocks.0.attn.qkv.bias"] = torch.zeros(5)
    with pytest.raises(MidnightError, match=r"file\.pth: does not fit") as caught:
        load_backbone(randomised(PLAIN), state, "file.pth")
    message = str(caught.value)
    assert "missing norm.weight" in message
    assert "unknown surplus" in message
    assert "blocks.0.attn.qkv.bias [5] for [72]" in message


def test_weights_of_another_architecture_are_refused() -> None:
    with pytest.raises(MidnightError, match="missing reg_token"):
        load_backbone(randomised(REGISTERS), dict(randomised(PLAIN).vit.state_dict()), "file.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_initialise_from_a_file(tmp_path: Path, name: str) -> None:
    source = randomised(PLAIN, 1)
    state = {key: value.contiguous() for key, value in source.vit.state_dict().items()}
    path = tmp_path / name
    save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
    model = randomised(PLAIN, 2)
    initialise(model, Backbone(arch=PLAIN.arch, kwargs=SHAPE, init=str(path)), 56, None)
    assert torch.equal(model.vit.pos_embed, source.vit.pos_embed)


def test_files_that_are_missing_damaged_or_more_than_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no weights file"):
        read_weights(tmp_path / "absent.pth")
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(ConfigError, match="not readable"):
        read_weights(tmp_path / "bad.safetensors")
    torch.save({"model": tmp_path}, tmp_path / "code.pth")
    with pytest.raises(ConfigError, match=r"code\.pth: refused"):
        read_weights(tmp_path / "code.pth")


def test_a_parent_run_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"run:other needs that run's folder"):
        initialise(randomised(PLAIN), Backbone(arch=PLAIN.arch, kwargs=SHAPE, init="run:other"), 56, None)


def test_layouts_are_told_apart() -> None:
    assert layout_of(dict(randomised(PLAIN).vit.state_dict())) == "timm"
    assert to_timm(dict(randomised(PLAIN).vit.state_dict()))[1] is None
