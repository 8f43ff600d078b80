"""A hundred absurd values: each is refused at start, by a line that begins with its key."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from midnight.config import load_recipe, recipe_names
from midnight.config.checks import patch_size, recipe_problems
from midnight.config.recipe import Backbone, Recipe
from midnight.errors import ConfigError

ABSURD: list[tuple[str, Any]] = [
    ("tiles.size", 0),
    ("tiles.size", -256),
    ("tiles.size", 25.5),
    ("tiles.mpps", []),
    ("tiles.mpps", [0]),
    ("tiles.mpps", [-0.5]),
    ("tiles.mpps", 0.5),
    ("tiles.mpp_weights", [1]),
    ("tiles.mpp_weights", [0, 0, 0, 0]),
    ("tiles.mpp_weights", [1, 1, 1, -1]),
    ("tiles.foreground", 40),
    ("tiles.foreground", -0.1),
    ("tiles.hsv_filter.hue", [180, 90]),
    ("tiles.hsv_filter.hue", [0, 360]),
    ("tiles.hsv_filter.saturation", [255, 8]),
    ("tiles.hsv_filter.value", [0, 256]),
    ("tiles.hsv_filter.min_fraction", 60),
    ("tiles.hed_sigma", -0.05),
    ("tiles.slide_weights", "tissue"),
    ("tiles.max_open_slides", 0),
    ("tiles.max_damaged", 50),
    ("tiles.damage_probes", 0),
    ("tiles.patience", -1),
    ("tiles.tiles_per_read", 0),
    ("tiles.read_side", 128),
    ("tiles.predrawn", {"count": 0}),
    ("tiles.predrawn", {"count": 10, "format": "webp"}),
    ("tiles.predrawn", {"count": 10, "quality": 101}),
    ("tiles.predrawn", {}),
    ("crops.global_size", 0),
    ("crops.global_size", 225),
    ("crops.global_size", 224.5),
    ("crops.local_size", 96),
    ("crops.local_size", 13),
    ("crops.local_size", 238),
    ("crops.n_local", -1),
    ("crops.global_scale", [1.0, 0.32]),
    ("crops.global_scale", [0, 1]),
    ("crops.global_scale", [0.3, 1.5]),
    ("crops.global_scale", [0.3]),
    ("crops.local_scale", [0.4, 0.1]),
    ("crops.local_scale", [0, 0.3]),
    ("crops.jitter", [4, 0.4, 0.2, 0.1]),
    ("crops.jitter", [0.4, 0.4, 0.2, 0.6]),
    ("crops.jitter", [-0.4, 0.4, 0.2, 0.1]),
    ("crops.jitter", [0.4, 0.4, 0.2]),
    ("crops.jitter_p", 1.5),
    ("crops.grayscale_p", -0.2),
    ("crops.blur_p", [1.1, 0.1, 0.5]),
    ("crops.solarize_p", 20),
    ("crops.flips", "sometimes"),
    ("crops.mean", [127.5, 127.5, 127.5]),
    ("crops.mean", [-0.5, 0.5, 0.5]),
    ("crops.std", [0, 0.5, 0.5]),
    ("crops.std", [127.5, 127.5, 127.5]),
    ("crops.std", [-0.5, 0.5, 0.5]),
    ("backbone.arch", None),
    ("backbone.kwargs", "depth 12"),
    ("backbone.drop_path", 1.4),
    ("backbone.layer_scale", 0),
    ("backbone.init", None),
    ("heads.prototypes", 1),
    ("heads.hidden", 0),
    ("heads.bottleneck", -1),
    ("heads.layers", 0),
    ("heads.shared", "no, two"),
    ("loss.dino", -1),
    ("loss.dino, loss.ibot", {"loss": {"dino": 0, "ibot": 0}}),
    ("loss.ibot", {"loss": {"mask_probability": 0}}),
    ("loss.ibot", {"loss": {"mask_ratio": [0, 0]}}),
    ("loss.regularizer", "kd"),
    ("loss.regularizer_weight", -0.05),
    ("loss.kde_kappa", 0),
    ("loss.student_temperature", 0),
    ("loss.teacher_temperature", [0, 0.07]),
    ("loss.teacher_temperature", [0.04, 0.7]),
    ("loss.teacher_warmup", 30),
    ("loss.sinkhorn_iterations", 0),
    ("loss.mask_probability", 50),
    ("loss.mask_ratio", [0.5, 0.1]),
    ("loss.mask_ratio", [0.1, 1.5]),
    ("optimizer.base_lr", 0),
    ("optimizer.base_lr", -1e-3),
    ("optimizer.base_lr", 20),
    ("optimizer.base_lr", "fast"),
    ("optimizer.min_lr", 0.1),
    ("optimizer.min_lr", -1),
    ("optimizer.warmup", 10),
    ("optimizer.weight_decay", [-0.04, 0.2]),
    ("optimizer.weight_decay", 0.04),
    ("optimizer.layer_decay", 0),
    ("optimizer.layer_decay", 1.1),
    ("optimizer.patch_embed_lr", 0),
    ("optimizer.betas", [0.9, 1.0]),
    ("optimizer.betas", [1.0, 0.999]),
    ("optimizer.clip_grad", 0),
    ("optimizer.freeze_last_layer", 2),
    ("optimizer.momentum", [0.994, 1.1]),
    ("optimizer.momentum", [1.0, 0.994]),
    ("optimizer.momentum", [1.0, 1.0]),
    ("training.iterations", 0),
    ("training.iterations", 1),
    ("training.iterations", 1.5),
    ("training.schedule_iterations", 10),
    ("training.gpus", 0),
    ("training.batch_size", 0),
    ("training.accumulation", 0),
    ("training.precision", "fp16"),
    ("training.compile", "yes please"),
    ("training.checkpoint_every", 0),
    ("training.keep_checkpoints", 0),
    ("training.keep_every", 0),
    ("training.sharding", "ddp"),
    ("training.log_every", 0),
    ("training.probe_every", -1),
    ("training.probe_tiles", 1),
    ("training.workers", -1),
    ("training.stall_seconds", 0),
    ("training.augment", "gpu"),
    ("training.max_nonfinite", -1),
    ("seed", -1),
    ("seed", None),
]


def override(key: str, value: Any) -> dict[str, Any]:
    if "," in key or (isinstance(value, dict) and set(value) == {key.split(".")[0]}):
        return dict(value)
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def test_there_are_a_hundred() -> None:
    assert len(ABSURD) > 100


@pytest.mark.parametrize(("key", "value"), ABSURD)
def test_an_absurd_value_is_a_line_that_begins_with_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("midnight-12k", override(key, value))
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("/") and "midnight-12k.yaml with override: " in first
    lines = [line.strip() for line in rest] or [first.partition("override: ")[2]]
    assert any(line.startswith(key) for line in lines), lines


def test_the_scale_of_255_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"crops\.mean: \[127\.5, .* is on the scale of 0 to 255; .* divide by 255"):
        load_recipe("midnight-12k", {"crops": {"mean": [127.5] * 3}})


def test_a_crop_that_is_no_multiple_of_the_patch_names_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"crops\.global_size: 225 px .* the patch, 14 px; take 224 or 238"):
        load_recipe("midnight-12k", {"crops": {"global_size": 225}})


def test_all_problems_are_said_at_once() -> None:
    change = {"crops": {"local_size": 96, "mean": [127.5] * 3}, "loss": {"mask_ratio": [0.5, 0.1]}}
    with pytest.raises(ConfigError) as caught:
        load_recipe("midnight-12k", change)
    first, *rest = str(caught.value).splitlines()
    assert first.endswith("with override: 3 problems:")
    assert [line.split(":")[0].strip() for line in rest] == ["crops.local_size", "crops.mean", "loss.mask_ratio"]


@pytest.mark.parametrize("name", recipe_names())
def test_the_projects_recipes_have_no_problems(name: str) -> None:
    assert recipe_problems(load_recipe(name)) == []


@pytest.mark.parametrize(
    ("arch", "kwargs", "patch"),
    [
        ("vit_giant_patch14_dinov2", {}, 14),
        ("vit_tiny_patch16_224", {"patch_size": 14}, 14),
        ("eva02_base", {}, None),
    ],
)
def test_the_patch_is_told_by_its_name(arch: str, kwargs: dict[str, Any], patch: int | None) -> None:
    assert patch_size(Recipe(backbone=Backbone(arch, kwargs))) == patch


def test_text_that_is_a_number_is_one() -> None:
    """YAML 1.1 reads `1e-3` as text."""
    text = "optimizer: {base_lr: 1e-3, betas: [9e-1, .999], min_lr: 0}"
    recipe = load_recipe("demo", yaml.safe_load(text))
    assert (recipe.optimizer.base_lr, recipe.optimizer.betas) == (1e-3, (0.9, 0.999))


def test_another_architecture_begins_without_the_bases_arguments(tmp_path: Path) -> None:
    """A ViT-tiny that inherited depth 4 and width 96 was a ViT of 0.9 M parameters, without a word."""
    (tmp_path / "small.yaml").write_text("backbone: {arch: vit_tiny_patch14_x, kwargs: {depth: 4, embed_dim: 96}}\n")
    (tmp_path / "other.yaml").write_text("base: small\nbackbone: {arch: vit_small_patch14_x}\n")
    (tmp_path / "same.yaml").write_text("base: small\nbackbone: {kwargs: {depth: 5}}\n")
    assert load_recipe("other", folder=tmp_path).backbone.kwargs == {}
    assert load_recipe("same", folder=tmp_path).backbone.kwargs == {"depth": 5, "embed_dim": 96}
    changed = {"backbone": {"arch": "vit_base_patch14_x", "kwargs": {"depth": 6}}}
    assert load_recipe("small", changed, tmp_path).backbone.kwargs == {"depth": 6}
