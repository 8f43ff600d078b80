import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from midnight import cli
from midnight.errors import ConfigError
from midnight.evaluate import quick
from midnight.evaluate.entries import Task
from midnight.evaluate.registry import load_tasks
from midnight.evaluate.store import Embeddings
from tests.evaluate.eva_example import write_folder
from tests.evaluate.weights.published import hub_state, make_vit, write_file


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


def test_weights_of_other_people_are_checked_too(
    configfile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_file(tmp_path / "hub.pth", hub_state(make_vit(init_values=1.0)))
    command = ["quick-check", str(tmp_path / "hub.pth"), "--task", "crc-fields", "--configfile", str(configfile)]
    with pytest.raises(SystemExit, match=r"^midnight: error: \S*hub\.pth: can't tell the mean and std.*--mean"):
        cli.main(command)
    command += ["--mean", "0.5", "0.5", "0.5", "--std", "0.5", "0.5", "0.5"]
    cli.main(command)
    assert "of " + str(tmp_path / "hub.pth") + " at 56 px" in capsys.readouterr().out
    cli.main([*command, "--size", "28", "--json"])
    assert json.loads(capsys.readouterr().out)["size"] == 28


def test_wrong_tasks_are_one_line() -> None:
    with pytest.raises(ConfigError, match="--task: 'consep' is no tile or folder task"):
        quick.find_task("consep")
    with pytest.raises(ConfigError, match="--task: 'bach-stain-light'"):
        quick.find_task("bach-stain-light")
    assert quick.find_task("lung", {"lung": "/data/lung"}).dataset.root == "/data/lung"
