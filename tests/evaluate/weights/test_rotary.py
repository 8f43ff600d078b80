"""DINOv3 and its kind, as timm writes them."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.eva import Eva
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from midnight.config import Backbone
from midnight.errors import ConfigError, MidnightError
from midnight.evaluate.encoder import load_encoder
from midnight.evaluate.entries import Model
from midnight.evaluate.weights import load_weights
from midnight.ssl.model.backbone import build_vit

ARCH = "vit_tiny_patch16_dinov3_qkvb"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def made() -> Eva:
    torch.manual_seed(0)
    vit = timm.create_model(ARCH, num_classes=0, dynamic_img_size=True).eval()
    assert isinstance(vit, Eva)
    return vit


@pytest.fixture
def folder(made: Eva, tmp_path: Path) -> Path:
    """As timm's push_to_hf_hub writes it."""
    images = {"input_size": [3, 256, 256], "mean": MEAN, "std": STD}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": ARCH, "pretrained_cfg": images}))
    save_file(dict(made.state_dict()), tmp_path / "model.safetensors")
    return tmp_path


def entry(path: Path, **keys: Any) -> Model:
    return Model(**({"source": "weights", "label": "W", "sizes": [64], "path": str(path), "name": "w"} | keys))


def test_timms_folder_gives_timms_tokens(folder: Path, made: Eva) -> None:
    encoder = load_encoder(entry(folder), None, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder.tokens(IMAGES), made.forward_features(IMAGES))
    assert encoder.registers == 4
    loaded = load_weights(entry(folder))
    assert (loaded.size, loaded.mean, loaded.std) == (256, MEAN, STD)


def test_a_bare_file_needs_the_name(folder: Path, made: Eva) -> None:
    file = folder / "model.safetensors"
    (folder / "config.json").unlink()
    keys: dict[str, Any] = {"mean": MEAN, "std": STD}
    with pytest.raises(MidnightError, match=r"has no position table, so it has rotary positions.*arch: vit_base"):
        load_weights(entry(file, **keys))
    with torch.no_grad():
        found = load_encoder(entry(file, arch=ARCH, **keys), None, 64).tokens(IMAGES)
        torch.testing.assert_close(found, made.forward_features(IMAGES))
    with pytest.raises(MidnightError, match="no vit_small_patch16_dinov3: "):
        load_weights(entry(file, arch="vit_small_patch16_dinov3", **keys))
    with pytest.raises(MidnightError, match="vit_tiny_patch16_224 has no rotary positions"):
        load_weights(entry(file, arch="vit_tiny_patch16_224", **keys))
    with pytest.raises(MidnightError, match="timm can't build 'vit_unheard_of'"):
        load_weights(entry(file, arch="vit_unheard_of", **keys))


def test_its_random_init_sees_the_image(folder: Path) -> None:
    random, trained = load_weights(entry(folder, source="random")), load_weights(entry(folder))
    assert random.hash != trained.hash
    assert isinstance(random.vit, Eva)
    assert float(random.vit.state_dict()["blocks.0.gamma_1"].mean()) == 1
    again = load_weights(entry(folder, source="random")).vit.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in random.vit.state_dict().items())


def test_transformers_own_names_are_refused_for_what_they_are(tmp_path: Path) -> None:
    small = DINOv3ViTConfig(hidden_size=48, num_hidden_layers=1, num_attention_heads=3, intermediate_size=96)
    DINOv3ViTModel(small).save_pretrained(tmp_path)
    with pytest.raises(MidnightError, match="is DINOv3 by transformers' names, which are not read"):
        load_weights(entry(tmp_path, mean=MEAN, std=STD))


def test_it_is_not_trained_and_the_reason_is_said() -> None:
    with pytest.raises(
        ConfigError, match=r"'vit_tiny_patch16_dinov3_qkvb' has rotary positions .* not trained; take a"
    ):
        build_vit(Backbone(arch=ARCH), 64)
