import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from midnight import cli
from midnight.config import Mlflow, load_recipe
from midnight.errors import ConfigError, MidnightError
from midnight.evaluate import quick
from midnight.evaluate.entries import Task
from midnight.evaluate.registry import load_tasks
from midnight.evaluate.store import Embeddings
from midnight.ssl import distributed
from midnight.ssl.export import export_teacher
from midnight.ssl.job import Job, write_job
from midnight.ssl.network import build_student
from midnight.ssl.shards import own_pieces, write_shard
from tests.evaluate.eva_example import write_folder


@pytest.fixture
def configfile(tmp_path: Path) -> Path:
    """A configuration whose labelled images are three classes of different brightness."""
    write_folder(tmp_path / "fields" / "colorectal-cancer", per_class=8)
    content = {"cohorts": {"x": {"source": "local", "path": "x"}}, "runs": {}, "results_dir": str(tmp_path / "results")}
    content["evaluation"] = {"data_root": str(tmp_path / "fields"), "accelerator": "cpu", "workers": 0}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def stored(labels: np.ndarray, split: list[str], signal: np.ndarray) -> Embeddings:
    """Embeddings of which CLS is noise and the mean of the patches holds the signal."""
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(size=(len(labels), 4)), signal[:, None] * np.ones(4)], 1)
    table = pd.DataFrame({"split": split, "name": map(str, range(len(labels))), "target": labels * 1.0, "group": ""})
    return Embeddings(features.astype(np.float16), table, {})


def tile_task(name: str) -> Task:
    return load_tasks()[name]


def test_a_tile_task_is_scored_on_the_split_that_it_scores() -> None:
    labels = np.tile([0, 1], 90)
    split = ["train"] * 60 + ["val"] * 60 + ["test"] * 60
    signal = np.where(np.array(split) == "test", 1 - labels, labels) + 0.1 * np.random.default_rng(1).normal(size=180)
    for name, expected in (("bach", 1.0), ("pcam", 0.0)):
        check = quick.classify("m", 98, tile_task(name), stored(labels, split, signal))
        assert (check.train, check.scored, check.classes) == (60, 60, 2)
        assert check.scores["cls_mean"]["linear"] == pytest.approx(expected, abs=0.1)
        assert check.scores["cls"]["knn"] == pytest.approx(0.5, abs=0.25)


def test_only_reported_benchmarks_are_warned_of() -> None:
    labels = np.tile([0, 1], 30)
    data = stored(labels, ["train"] * 40 + ["val"] * 20, labels * 1.0)
    assert "bach is a reported benchmark" in quick.classify("m", 98, tile_task("bach"), data).warning
    for name in ("demo-bach", "crc-fields"):
        assert quick.classify("m", 98, tile_task(name), data).warning == ""


def test_accuracies_are_balanced() -> None:
    truth = np.array([0] * 90 + [1] * 10)
    features = np.zeros((100, 3), np.float32)
    features[:, 0] = 1
    scores = quick.measure(features, truth, features, truth)
    assert scores == {"knn": 0.5, "linear": 0.5}


def test_the_command_prints_a_table_or_json(
    make_model: Callable[[int], Path], configfile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["quick-check", str(make_model(4)), "--task", "crc-fields", "--configfile", str(configfile)]
    cli.main(command)
    text = capsys.readouterr().out
    assert text.startswith("quick check, not a reported score")
    assert "12 images to train, 12 scored, 3 classes, chance 0.333" in text
    cli.main([*command, "--json"])
    check = json.loads(capsys.readouterr().out)
    assert check["size"] == 28
    assert set(check["scores"]) == {"cls", "cls_mean"}
    assert all(value >= 0.5 for values in check["scores"].values() for value in values.values())
    assert f"{check['scores']['cls']['linear']:.3f}" in text


def test_a_checkpoint_is_its_teacher(tmp_path: Path) -> None:
    recipe = load_recipe("demo")
    teacher, run = build_student(recipe), tmp_path / "run"
    with torch.no_grad():
        teacher.backbone.vit.cls_token.add_(1.0)
    export_teacher(teacher.backbone.vit, recipe, run, 7, "demo")
    write_job(run / "job.json", Job(recipe, {}, run, None, Mlflow(), run, "demo"))
    folder = run / "checkpoints" / "step_00000007"
    folder.mkdir(parents=True)
    roles = {"student": build_student(recipe), "teacher": teacher}
    tensors = {f"{role}.{name}": value for role, net in roles.items() for name, value in net.state_dict().items()}
    write_shard(folder / "shard-00000.safetensors", own_pieces(tensors, distributed.rank(), distributed.world()))
    quick.export_checkpoint(folder, tmp_path / "out")
    expected, found = (load_file(place / "teacher.safetensors") for place in (run, tmp_path / "out"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert quick.trained_size(tmp_path / "out") == recipe.crops.global_size

    (folder / "shard-00000.safetensors").write_bytes(b"cut")
    with pytest.raises(MidnightError, match=r"step_00000007: no usable checkpoint"):
        quick.export_checkpoint(folder, tmp_path / "again")
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(MidnightError, match=r"step_00000007: no usable checkpoint"):
        quick.export_checkpoint(folder, tmp_path / "again")


def test_wrong_models_and_tasks_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--task: 'consep' is no tile or folder task"):
        quick.find_task("consep")
    with pytest.raises(ConfigError, match="--task: 'bach-stain-light'"):
        quick.find_task("bach-stain-light")
    assert quick.find_task("lung", {"lung": "/data/lung"}).dataset.root == "/data/lung"
    with pytest.raises(MidnightError, match="give a run's folder, when it has ended, or one of its checkpoints"):
        quick.trained_size(tmp_path)
