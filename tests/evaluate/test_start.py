"""Checked before anything runs, all at once."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from midnight.config import load_recipe, read_yaml
from midnight.errors import ConfigError
from midnight.evaluate.start import read_start, summary
from midnight.ssl.model.backbone import build_vit


def problems(value: dict[str, Any], files: bool = True) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_start(value, "c.yaml", files)
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("c.yaml: ")
    return [line.strip() for line in rest] or [first.removeprefix("c.yaml: ")]


@pytest.mark.parametrize("name", ["config", "demo", "demo-ablations"])
def test_the_projects_configurations_are_all_right(repository: Path, name: str) -> None:
    path = repository / "config" / f"{name}.yaml"
    start = read_start(read_yaml(path), str(path))
    assert set(start.recipes) == set(start.config.runs)
    assert summary(start).startswith("OK: cohorts ")


def test_what_local_yaml_needs_filled_in_is_said_at_once(repository: Path) -> None:
    found = problems(read_yaml(repository / "config" / "local.yaml"))
    assert [line.split(":")[0] for line in found] == ["evaluation.folders.tiles", "cohorts.local.path"]
    assert all("fill it in" in line for line in found)


def test_names_of_all_kinds_are_said_at_once_with_what_was_meant(tmp_path: Path) -> None:
    value = {
        "results_dir": str(tmp_path),
        "cohorts": {"own": {"source": "local", "path": "/nowhere/slides"}},
        "runs": {
            "a": {"recipe": "lokal", "cohorts": {"own": 1}},
            "b": {"recipe": "demo", "cohorts": {"own": 1}, "override": {"crops": {"local_size": 50}}},
            "c": {"recipe": "demo", "cohorts": {"own": 1}, "override": {"backbone": {"init": "/nowhere/w.pth"}}},
            "d": {"recipe": "demo", "cohorts": {"own": 1}, "override": {"backbone": {"init": "run:e"}}},
        },
        "evaluation": {"models": ["unni"], "tasks": ["bahc", "crk"], "folders": {"mine": "/nowhere/tiles"}},
    }
    found = problems(value)
    expected = [
        "runs.a: unknown recipe 'lokal'; did you mean 'local'?",
        "demo.yaml with override: crops.local_size: 50 px is no multiple of the patch, 14 px; take 42 or 56",
        "evaluation.models: no model 'unni'; did you mean 'uni'?",
        "evaluation.tasks: no task 'bahc'; did you mean 'bach'?",
        "evaluation.tasks: no task 'crk'; did you mean 'crc'?",
        "cohorts.own.path: /nowhere/slides is not there",
        "evaluation.folders.mine: /nowhere/tiles is not there",
        "runs.c: backbone.init: no weights file /nowhere/w.pth",
        "runs.d: backbone.init: run:e is not among runs",
    ]
    assert len(found) == len(expected), found
    for line, words in zip(found, expected, strict=True):
        assert words in line


def test_a_wrong_key_hides_no_other_problem(tmp_path: Path) -> None:
    """Neither a wrong key of the pipeline's file what its recipes and files lack, nor one of a recipe the others."""
    change = {"crops": {"mean": [127.5] * 3}, "loss": {"mask_ratio": [0.5, 0.1]}, "optimizer": {"betas": [1.0, 0.9]}}
    value = {
        "results_dir": str(tmp_path),
        "shard_syze": 3,
        "seed": -1,
        "cohorts": {"own": {"source": "local", "path": "/nowhere"}, "bad": {"source": "ftp"}},
        "runs": {
            "a": {"recipe": "demo", "cohorts": {"own": 1, "bad": 1}, "override": change},
            "b": {"cohorts": {"own": 1}},
        },
        "evaluation": {"models": ["nobody"], "sizes": [3]},
    }
    found = [line.split(": ")[0 if not line.startswith("runs.a: ") else 1] for line in problems(value)]
    expected = ["(top level)", "cohorts.bad.source", "evaluation.sizes.0", "runs.b", "seed", "optimizer.betas.0"]
    expected += ["crops.mean", "loss.mask_ratio", "evaluation.models", "cohorts.own.path"]
    assert found == expected


@pytest.mark.parametrize("value", [{"cohorts": 3}, {"runs": []}, {"evaluation": None}, {"cohorts": {"a": None}}])
def test_a_section_that_is_none_at_all_is_one_line(value: dict[str, Any]) -> None:
    (line,) = problems(value, files=False)
    assert line.split(":")[0] in ("cohorts", "runs", "evaluation", "cohorts.a")


def test_a_job_looks_for_no_files() -> None:
    value = {"cohorts": {"own": {"source": "local", "path": "/nowhere"}}}
    assert read_start(value, "c.yaml", files=False).config.cohorts["own"].path == "/nowhere"
    assert problems(value) == [f"cohorts.own.path: /nowhere is not there (looked for from {Path.cwd()})"]


def test_the_folder_of_data_sets_is_looked_for_where_nothing_is_downloaded(tmp_path: Path) -> None:
    evaluation = {"data_root": str(tmp_path / "none"), "tasks": ["bach"], "models": []}
    assert read_start({"evaluation": evaluation}, "c.yaml").tasks
    (line,) = problems({"evaluation": evaluation | {"download": False}})
    assert line.startswith(f"evaluation.data_root: {tmp_path / 'none'} is not there and download is off, but bach need")
    own = evaluation | {"download": False, "tasks": [], "folders": {"mine": str(tmp_path)}}
    assert read_start({"evaluation": own}, "c.yaml").tasks
    (tmp_path / "none").touch()
    (line,) = problems({"evaluation": evaluation})
    assert line.endswith("is a file; name the folder of the data sets")


def test_slides_that_are_away_since_they_were_pinned_stop_nothing(tmp_path: Path) -> None:
    manifest = tmp_path / "cohorts" / "own" / "manifest.tsv"
    manifest.parent.mkdir(parents=True)
    manifest.touch()
    value = {"results_dir": str(tmp_path), "cohorts": {"own": {"source": "local", "path": "/nowhere"}}}
    assert read_start(value, "c.yaml").config.cohorts


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Of the demo's architecture."""
    recipe = load_recipe("demo")
    vit = build_vit(recipe.backbone, recipe.crops.global_size)
    save_file(dict(vit.state_dict()), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def with_init(weights: Path, **more: Any) -> dict[str, Any]:
    run = {"recipe": "demo", "cohorts": {"own": 1}, "override": {"backbone": {"init": str(weights), **more}}}
    cohort = {"source": "local", "path": str(weights.parent)}
    return {"results_dir": str(weights.parent), "cohorts": {"own": cohort}, "runs": {"r": run}}


def test_the_shapes_of_an_init_file_are_compared(weights: Path) -> None:
    assert read_start(with_init(weights), "c.yaml").recipes
    (line,) = problems(with_init(weights, kwargs={"embed_dim": 48}))
    assert line.startswith(f"runs.r: backbone.init: {weights} does not fit vit_")
    assert "other shape" in line


def test_a_file_that_is_no_weights_is_told_at_start(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_text("<html>")
    (line,) = problems(with_init(tmp_path / "w.pth"))
    assert line.startswith(f"runs.r: {tmp_path / 'w.pth'}: ")
    torch.save({"step": 3}, tmp_path / "w.pth")
    (line,) = problems(with_init(tmp_path / "w.pth"))
    assert line.endswith("w.pth: holds no tensors")


def test_a_fit_that_is_never_validated_is_told_at_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from midnight.evaluate import registry

    text = (
        registry.tasks_file()
        .read_text()
        .replace("patience: 9, validate_every: 10", "patience: 9, validate_every: 99999")
    )
    (tmp_path / "tasks.yaml").write_text(text)
    assert yaml.safe_load(text)
    monkeypatch.setattr(registry.load_tasks, "__defaults__", (tmp_path / "tasks.yaml",))
    monkeypatch.setattr(registry.select_tasks, "__defaults__", (tmp_path / "tasks.yaml", None))
    (line,) = problems({"evaluation": {"tasks": ["pcam-10shot"]}})
    assert line.startswith("tasks.pcam-10shot.protocols.paper.validate_every: 99999, but the fit ends after")
