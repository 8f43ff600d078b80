import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from midnight.errors import MidnightError
from midnight.evaluate.encoder import (
    Tokens,
    embed_images,
    load_encoder,
    patch_map,
    pick_device,
    pick_precision,
    pool,
)
from midnight.evaluate.entries import Model


@pytest.mark.parametrize("registers", [0, 4])
def test_cls_and_mean_are_those_of_plain_timm_without_registers(
    make_model: Callable[[int], Path], registers: int
) -> None:
    folder = make_model(registers)
    encoder = load_encoder_of(folder, 28)
    card = json.loads((folder / "model.json").read_text())
    plain = timm.create_model(card["arch"], num_classes=0, **card["kwargs"]).eval()
    plain.load_state_dict(load_file(folder / "teacher.safetensors"))
    images = torch.randn(3, 3, 28, 28)
    with torch.no_grad():
        tokens = plain.forward_features(images)
    pooled = pool(encoder.tokens(images), encoder.registers)
    assert tokens.shape[1] == 1 + registers + 4
    assert torch.allclose(pooled[:, :32], tokens[:, 0], atol=1e-6)
    assert torch.allclose(pooled[:, 32:], tokens[:, 1 + registers :].mean(1), atol=1e-6)
    with_registers = tokens[:, 1:].mean(1)
    assert torch.allclose(pooled[:, 32:], with_registers, atol=1e-6) == (registers == 0)


def load_encoder_of(folder: Path, size: int):
    return load_encoder(Model(source="dir", label="Tiny", sizes=[size], path=str(folder), name="tiny"), None, size)


@pytest.mark.parametrize("size", [28, 98])
def test_other_sizes_interpolate_positions(make_model: Callable[[int], Path], size: int) -> None:
    encoder = load_encoder_of(make_model(4), size)
    tokens = encoder.tokens(torch.randn(2, 3, size, size))
    assert tokens.shape == (2, 5 + (size // 14) ** 2, 32)
    assert patch_map(tokens, 4).shape == (2, 32, size // 14, size // 14)


def test_patch_map_keeps_the_places() -> None:
    tokens = torch.arange(1 + 2 + 9.0).reshape(1, 12, 1)
    assert patch_map(tokens, 2)[0, 0].tolist() == [[3, 4, 5], [6, 7, 8], [9, 10, 11]]
    with pytest.raises(MidnightError, match="no square map"):
        patch_map(tokens, 1)


def test_frozen_for_good(make_model: Callable[[int], Path]) -> None:
    encoder = load_encoder_of(make_model(0), 28)
    encoder.tokens.train()
    assert not encoder.tokens.training
    assert not any(module.training for module in encoder.tokens.modules())
    assert not any(parameter.requires_grad for parameter in encoder.tokens.parameters())
    assert not encoder.tokens(torch.zeros(1, 3, 28, 28, requires_grad=True)).requires_grad


def test_tokens_reads_hugging_face_models() -> None:
    class Output:
        last_hidden_state = torch.ones(1, 5, 8)

    class Fake(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> Output:
            return Output()

    assert Tokens(Fake())(torch.zeros(1, 3, 28, 28)).shape == (1, 5, 8)


def test_wrong_sizes_registers_and_files(make_model: Callable[[int], Path], tmp_path: Path) -> None:
    with pytest.raises(MidnightError, match=r"models\.tiny\.sizes: doesn't take inputs of 30 px"):
        load_encoder_of(make_model(0), 30)
    folder = tmp_path / "copy"
    shutil.copytree(make_model(4), folder)
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(card | {"registers": 0}))
    with pytest.raises(MidnightError, match=r"registers: 0, but the model has 4"):
        load_encoder_of(folder, 28)
    (folder / "model.json").write_text(json.dumps({key: card[key] for key in card if key != "mean"}))
    with pytest.raises(MidnightError, match=r"model\.json: missing or wrong key 'mean'"):
        load_encoder_of(folder, 28)
    (folder / "teacher.safetensors").write_bytes(b"cut")
    with pytest.raises(MidnightError, match="no usable"):
        load_encoder_of(folder, 28)
    with pytest.raises(MidnightError, match=r"models\.tiny: no folder"):
        load_encoder_of(tmp_path / "absent", 28)


def test_the_hash_follows_weights_and_normalisation(make_model: Callable[[int], Path], tmp_path: Path) -> None:
    first = load_encoder_of(make_model(0), 28).hash
    folder = tmp_path / "copy"
    shutil.copytree(make_model(0), folder)
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(card | {"step": 7}))
    assert load_encoder_of(folder, 28).hash == first
    (folder / "model.json").write_text(json.dumps(card | {"mean": [0.4, 0.4, 0.4]}))
    assert load_encoder_of(folder, 28).hash != first


def test_gated_weights_say_where_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    half = (0.5, 0.5, 0.5)
    model = Model(source="eva", label="U", sizes=[224], model_name="x", mean=half, std=half, gate="https://g", name="u")
    with pytest.raises(MidnightError, match=r"models\.u: its weights need a licence: ask at https://g.*HF_TOKEN"):
        load_encoder(model, None, 224)


def test_a_timm_model_by_name() -> None:
    half = (0.5, 0.5, 0.5)
    kwargs = {"pretrained": False, "depth": 1, "embed_dim": 32, "num_heads": 2, "patch_size": 14, "img_size": 28}
    model = Model("timm", "T", [28], model_name="vit_tiny_patch16_224", kwargs=kwargs, mean=half, std=half, name="t")
    encoder = load_encoder(model, None, 28)
    assert (encoder.dim, encoder.registers) == (32, 0)
    assert len(encoder.hash) == 16
    wrong = Model("timm", "T", [28], model_name="no_such", mean=half, std=half, name="t")
    with pytest.raises(MidnightError, match=r"models\.t: no_such can't be loaded"):
        load_encoder(wrong, None, 28)


def test_pick_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(MidnightError, match=r"evaluation\.accelerator"):
        pick_device("gpu")


def test_half_precision_is_for_tasks_on_gpus_but_not_for_hest(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    for kind in ("tile", "slide", "folder"):
        assert pick_precision(gpu, kind) == "bfloat16"
        assert pick_precision(cpu, kind) == "float32"
    assert pick_precision(gpu, "hest") == "float32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert pick_precision(gpu, "tile") == "float32"


def test_a_batch_too_large_for_the_gpu_names_the_key(make_model: Callable[[int], Path]) -> None:
    class Full(torch.nn.Module):
        def forward_features(self, images: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB\nmore lines")

    full = dataclasses.replace(load_encoder_of(make_model(0), 28), tokens=Tokens(Full()))
    with pytest.raises(
        MidnightError, match=r"^evaluation\.batch_size: 5 images of 28 px in float32 don't fit"
    ) as caught:
        embed_images(full, torch.zeros(5, 3, 28, 28), "float32")
    assert "\n" not in str(caught.value)


def test_pool_against_numpy() -> None:
    tokens = torch.randn(2, 1 + 3 + 4, 5)
    expected = np.concatenate([tokens[:, 0].numpy(), tokens[:, 4:].numpy().mean(1)], 1)
    assert np.allclose(pool(tokens, 3).numpy(), expected, atol=1e-6)
