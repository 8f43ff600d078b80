"""A run goes on from its checkpoint with other values, and says so wherever it is spoken of."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from midnight.config import Recipe
from midnight.errors import ConfigError, MidnightError
from midnight.ssl.checkpoint.continuation import continue_with
from midnight.ssl.checkpoint.foresight import foresee
from midnight.ssl.checkpoint.segments import FILE, in_the_way, told
from tests.ssl.test_trainer import StopError, assert_same, curves, only_from, stopping_at
from tests.ssl.tiny import tiny_recipe, train_tiny

LOWER = {"base_lr": 1e-4}


def recipe_with(**optimizer: Any) -> Recipe:
    return tiny_recipe(optimizer={"base_lr": 1e-2} | optimizer)


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A run that was stopped in its seventh step, with checkpoints up to the sixth."""
    with pytest.raises(StopError):
        train_tiny(tmp_path / "run", recipe_with(), stopping_at(7))
    return tmp_path / "run"


def test_it_goes_on_with_the_new_values_from_the_newest_checkpoint(cut: Path) -> None:
    before = curves(cut)[:6]
    line = continue_with(cut, recipe_with(**LOWER), ["optimizer.base_lr"])
    assert line == "run goes on at step 6 with optimizer.base_lr 0.01 → 0.0001"
    assert "Training goes on at step 6" in foresee(cut, recipe_with(**LOWER))
    train_tiny(cut, recipe_with(**LOWER), batches=only_from(6))
    after = curves(cut)
    assert after[:6] == before
    assert [round(line["lr"] / other["lr"]) for line, other in zip(before, after[:6], strict=True)] == [1] * 6
    assert after[6]["lr"] < 0.05 * before[-1]["lr"]


def test_the_weights_go_on_too(cut: Path) -> None:
    """With a rate that changes nothing any more, the student stays what it was at the checkpoint."""
    student = load_file(cut / "checkpoints" / "step_00000006" / "shard-00000.safetensors")
    nothing = {"base_lr": 1e-30, "min_lr": 0.0}
    continue_with(cut, recipe_with(**nothing), ["optimizer.base_lr", "optimizer.min_lr"])
    train_tiny(cut, recipe_with(**nothing))
    last = load_file(cut / "checkpoints" / "step_00000008" / "shard-00000.safetensors")
    names = [name for name in student if name.startswith("student.")]
    assert names and all(torch.equal(student[name], last[name]) for name in names)
    moments = [name for name in student if name.endswith("exp_avg")]
    assert any(not torch.equal(student[name], last[name]) for name in moments)


def test_it_is_recorded_in_the_configuration_the_model_and_the_key(cut: Path, tmp_path: Path) -> None:
    old = yaml.safe_load((cut / "config.yaml").read_text())
    continue_with(cut, recipe_with(**LOWER), ["optimizer.base_lr"])
    train_tiny(cut, recipe_with(**LOWER))
    new = yaml.safe_load((cut / "config.yaml").read_text())
    expected = [{"until": 6, "key": old["hash"], "changed": ["optimizer.base_lr 0.01 → 0.0001"]}]
    assert new["segments"] == expected
    assert json.loads((cut / "model.json").read_text())["segments"] == expected
    assert told(expected) == ["at step 6 with optimizer.base_lr 0.01 → 0.0001"]
    train_tiny(tmp_path / "straight", recipe_with(**LOWER))
    straight = yaml.safe_load((tmp_path / "straight" / "config.yaml").read_text())
    assert len({old["hash"], new["hash"], straight["hash"]}) == 3
    assert "segments" not in json.loads((tmp_path / "straight" / "model.json").read_text())


def test_it_is_resumed_to_the_bit(cut: Path, tmp_path: Path) -> None:
    continue_with(cut, recipe_with(**LOWER), ["optimizer.base_lr"])
    shutil.copytree(cut, tmp_path / "other")
    train_tiny(cut, recipe_with(**LOWER))
    with pytest.raises(StopError):
        train_tiny(tmp_path / "other", recipe_with(**LOWER), stopping_at(7))
    train_tiny(tmp_path / "other", recipe_with(**LOWER), batches=only_from(6))
    assert_same(cut, tmp_path / "other")


def test_there_and_back_and_there_again(cut: Path, tmp_path: Path) -> None:
    """Each set of values keeps its own progress; nothing is lost, nothing begins anew."""
    continue_with(cut, recipe_with(**LOWER), ["optimizer.base_lr"])
    train_tiny(cut, recipe_with(**LOWER))
    lower = curves(cut)
    train_tiny(cut, recipe_with(), batches=only_from(6))
    train_tiny(tmp_path / "whole", recipe_with())
    assert_same(cut, tmp_path / "whole")
    train_tiny(cut, recipe_with(**LOWER), batches=only_from(8))
    assert curves(cut) == lower


def test_twice(cut: Path) -> None:
    continue_with(cut, recipe_with(**LOWER), ["optimizer.base_lr"])
    with pytest.raises(StopError):
        train_tiny(cut, recipe_with(**LOWER), stopping_at(7))
    third = tiny_recipe(optimizer={"base_lr": 1e-4}, loss={"regularizer_weight": 0.5})
    continue_with(cut, third, ["loss.regularizer_weight"])
    train_tiny(cut, third, batches=only_from(6))
    segments = yaml.safe_load((cut / "config.yaml").read_text())["segments"]
    assert [segment["until"] for segment in segments] == [6, 6]
    assert segments[0]["key"] != segments[1]["key"]


def test_a_damaged_newest_checkpoint_is_passed_over_and_left(cut: Path) -> None:
    shard = cut / "checkpoints" / "step_00000006" / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert "at step 4 with" in continue_with(cut, recipe_with(**LOWER), ["optimizer.base_lr"])
    assert shard.parent.is_dir()


def test_what_cannot_go_on_says_why(cut: Path, tmp_path: Path) -> None:
    both = recipe_with(**LOWER, clip_grad=1.0)
    cases: list[tuple[Recipe, list[str], str]] = [
        (recipe_with(), ["optimizer.base_lr"], "has these values already"),
        (both, ["optimizer.base_lr"], "also changed: optimizer.clip_grad 3.0 → 1.0; name it too"),
        (
            tiny_recipe(heads={"prototypes": 16}),
            ["heads"],
            r"can't go on with heads\.prototypes 32 → 16.*init: run:run",
        ),
        (tiny_recipe(backbone={"kwargs": {"depth": 1}}), ["backbone"], r"can't go on with backbone\.kwargs\.depth"),
        (recipe_with(**LOWER), [], "also changed: optimizer.base_lr"),
    ]
    files = sorted(path.name for path in cut.iterdir())
    for recipe, asked, words in cases:
        with pytest.raises(ConfigError, match=words):
            continue_with(cut, recipe, asked)
    odd = tiny_recipe(optimizer={"base_lr": 1e-2}, training={"accumulation": 4})
    with pytest.raises(ConfigError, match="step 6, which is no multiple of it"):
        continue_with(cut, odd, ["training.accumulation"])
    shorter = tiny_recipe(optimizer={"base_lr": 1e-2}, training={"iterations": 6})
    with pytest.raises(ConfigError, match=r"has all of its 6 steps: raise training\.iterations"):
        continue_with(cut, shorter, ["training.iterations"])
    assert sorted(path.name for path in cut.iterdir()) == files
    with pytest.raises(MidnightError, match=r"none: has no config\.yaml"):
        continue_with(tmp_path / "none", recipe_with(), ["optimizer.base_lr"])
    for path in (cut / "checkpoints").iterdir():
        path.rename(path.with_name(f"{path.name}.damaged"))
    with pytest.raises(MidnightError, match="no whole checkpoint"):
        continue_with(cut, recipe_with(**LOWER), ["optimizer.base_lr"])


def test_stochastic_depth_is_no_other_network() -> None:
    lines = ["backbone.drop_path 0.2 → 0.4", "crops.local_size 14 → 7", "crops.global_size 28 → 42", "cohorts.c a → b"]
    assert in_the_way(lines) == lines[2:]


def test_a_damaged_record_is_named_and_nothing_begins_anew(cut: Path) -> None:
    (cut / FILE).write_text("{")
    with pytest.raises(MidnightError, match=r"segments\.json: can't be read"):
        train_tiny(cut, recipe_with())


def test_before_a_run_begins_anew_it_is_said_how_it_would_go_on(cut: Path) -> None:
    line = foresee(cut, recipe_with(**LOWER))
    assert "begins anew at step 0 (to go on instead: midnight train run --continue-with optimizer.base_lr=…)" in line
    assert "--continue-with" not in foresee(cut, tiny_recipe(heads={"prototypes": 16}))
