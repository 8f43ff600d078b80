import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from midnight.config import initial_recipe
from midnight.errors import MidnightError
from midnight.ssl.exports.model_folder import init_model, load_model
from midnight.ssl.model.network import build_student
from tests.ssl.tiny import tiny_recipe

REGISTERS = {"arch": "vit_small_patch14_reg4_dinov2", "kwargs": {"patch_size": 7, "embed_dim": 24, "depth": 2}}


@pytest.mark.parametrize("backbone", [{}, REGISTERS | {"layer_scale": 1.0}, REGISTERS | {"layer_scale": None}])
def test_plain_timm_builds_the_same_model_from_the_card(tmp_path: Path, backbone: dict[str, object]) -> None:
    recipe = tiny_recipe(backbone=backbone | {"kwargs": {"num_heads": 2, "patch_size": 7, "embed_dim": 24, "depth": 2}})
    init_model(recipe, tmp_path, "demo")
    card = json.loads((tmp_path / "model.json").read_text())
    model = timm.create_model(card["arch"], pretrained=False, num_classes=0, **card["kwargs"])
    model.load_state_dict(load_file(tmp_path / "teacher.safetensors"), strict=True)
    images = torch.randn(2, 3, 28, 28)
    expected = build_student(recipe).eval().backbone(images)
    tokens = model.eval().forward_features(images)
    torch.testing.assert_close(tokens[:, 0], expected.cls)
    torch.testing.assert_close(tokens[:, 1 + card["registers"] :], expected.patches)


def test_the_card_says_what_is_needed(tmp_path: Path) -> None:
    init_model(tiny_recipe(), tmp_path, "real")
    model, card = load_model(tmp_path)
    assert not model.training
    expected = {"img_size": 28, "patch_size": 7, "embed_dim": 24, "registers": 0, "step": 0, "data": "real"}
    assert {name: card[name] for name in expected} == expected
    assert card["kwargs"]["img_size"] == 28
    assert card["kwargs"]["dynamic_img_size"] is True
    assert card["mean"] == [0.5, 0.5, 0.5]
    assert set(card["provenance"]) >= {"commit", "lock", "config", "versions"}


def test_random_init_is_what_training_starts_from(tmp_path: Path) -> None:
    recipe = tiny_recipe(heads={"prototypes": 48}, training={"iterations": 3})
    init_model(initial_recipe(recipe), tmp_path, "demo")
    start = build_student(recipe).backbone.vit.state_dict()
    saved = load_file(tmp_path / "teacher.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in start.items())


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MidnightError, match=str(tmp_path)):
        load_model(tmp_path)
    init_model(tiny_recipe(), tmp_path, "demo")
    weights = tmp_path / "teacher.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(MidnightError, match=str(tmp_path)) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)
