import json
import shutil
from pathlib import Path

import pytest
import yaml

from midnight.config import Recipe
from midnight.errors import MidnightError
from midnight.ssl.checkpoint.aside import set_aside
from midnight.ssl.checkpoint.foresight import foresee
from midnight.ssl.checkpoint.identity import resolved_config
from midnight.ssl.checkpoint.run_key import run_key
from tests.ssl.tiny import tiny_recipe


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that has done 11 steps."""
    folder = tmp_path / "own"
    (folder / "checkpoints" / "step_00000011").mkdir(parents=True)
    config = resolved_config(tiny_recipe(), {}, None, "demo")
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"hash": run_key(config)}))
    return folder


def test_nothing_is_said_where_nothing_begins_anew(run: Path, tmp_path: Path) -> None:
    assert foresee(run, tiny_recipe()) == ""
    assert foresee(run, tiny_recipe(training={"log_every": 7, "workers": 3})) == ""
    assert foresee(tmp_path / "new", tiny_recipe(optimizer={"base_lr": 0.5})) == ""


def test_a_change_is_named_with_what_happens_to_the_progress(run: Path) -> None:
    line = foresee(run, tiny_recipe(optimizer={"base_lr": 0.5}))
    before = tiny_recipe().optimizer.base_lr
    assert line.startswith(f"run own: changed since it was trained: optimizer.base_lr {before} → 0.5. ")
    assert "begins anew at step 0" in line and "11 steps so far are kept in" in line


def test_what_was_set_aside_of_this_configuration_goes_on(run: Path) -> None:
    key = run_key(yaml.safe_load((run / "config.yaml").read_text()))
    kept = set_aside(run / "checkpoints", key)
    assert kept.name == f"checkpoints.{key}"
    (run / "checkpoints" / "step_00000003").mkdir(parents=True)
    other = resolved_config(tiny_recipe(optimizer={"base_lr": 0.5}), {}, None, "demo")
    (run / "config.yaml").write_text(yaml.safe_dump(other | {"hash": run_key(other)}))
    line = foresee(run, tiny_recipe())
    assert "Training goes on at step 11, which this configuration had reached" in line and "its 3 steps" in line


def test_slides_that_changed_are_named_where_they_are_known(run: Path) -> None:
    config = resolved_config(tiny_recipe(), {}, None, "demo")
    config["cohorts"] = {"tcga": {"index": "i", "sha256": "abc", "weight": 1.0}}
    assert "cohorts.tcga nothing → ['abc', 1.0]" in foresee(run, tiny_recipe(), config)


def test_a_file_that_is_no_configuration_is_named(run: Path) -> None:
    (run / "config.yaml").write_text("a: 1\n")
    with pytest.raises(MidnightError, match=r"config\.yaml: is no configuration of a run"):
        foresee(run, tiny_recipe())


def test_a_finished_model_without_checkpoints_is_kept_and_said(run: Path) -> None:
    """After `rm -r checkpoints` a change trained over the only copy without a word."""
    shutil.rmtree(run / "checkpoints")
    finish(run, tiny_recipe(), 8)
    line = foresee(run, tiny_recipe(optimizer={"base_lr": 0.5}))
    assert "Training begins anew at step 0; its finished model is kept in" in line


def test_going_back_to_a_finished_model_is_no_training(run: Path) -> None:
    other = tiny_recipe(optimizer={"base_lr": 0.5})
    finish(run, other, other.training.iterations)
    assert "The finished model of these values is put back, without training" in foresee(run, other)


def finish(run: Path, recipe: Recipe, step: int) -> None:
    folder = run / f"finished.{run_key(resolved_config(recipe, {}, None, 'demo'))}"
    folder.mkdir()
    (folder / "teacher.safetensors").touch()
    (folder / "model.json").write_text(json.dumps({"step": step}))
