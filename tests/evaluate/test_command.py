from pathlib import Path
from typing import Any

import pytest

from midnight import cli
from midnight.config import load_config, read_yaml
from midnight.evaluate import command
from midnight.evaluate.registry import select_models
from tests.evaluate.weights.published import MEAN, hub_state, make_hf, make_vit, write_file, write_hf_folder


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The configurations that the workflow was started with."""
    started: list[Path] = []
    monkeypatch.setattr(command, "run_workflow", lambda path, _: started.append(path) or 0)
    return started


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", *map(str, arguments)])
    return ended.value.code if isinstance(ended.value.code, int) else pytest.fail(str(ended.value.code))


def test_it_writes_a_small_configuration_and_runs_it(tmp_path: Path, called: list[Path]) -> None:
    write_hf_folder(make_hf("vit"), tmp_path / "phikon")
    (tmp_path / "tiles").mkdir()
    assert run(tmp_path / "phikon", "uni", "--tiles", tmp_path / "tiles", "--out", tmp_path / "out") == 0
    assert called == [tmp_path / "out" / "config.yaml"]
    assert "snakemake --cores" in called[0].read_text()
    config = load_config(read_yaml(called[0]), "config")
    assert (config.cohorts, config.results_dir) == ({}, str(tmp_path / "out"))
    assert config.evaluation.folders == {"tiles": str(tmp_path / "tiles")}
    models = select_models(config.evaluation.models, config.runs, weights=config.evaluation.weights)
    assert [(model.name, model.source) for model in models.values()] == [
        ("colour-statistics", "colour"),
        ("uni", "eva"),
        ("phikon", "weights"),
        ("phikon-random", "random"),
    ]
    assert models["phikon"].sizes == [42]
    assert run(tmp_path / "phikon", "--tiles", tmp_path / "tiles", "--out", tmp_path / "out") == 0


def test_what_is_named_goes_into_the_configuration(tmp_path: Path, called: list[Path]) -> None:
    write_file(tmp_path / "hub.pth", hub_state(make_vit(init_values=1.0)))
    named = ["--mean", *map(str, MEAN), "--std", "0.5", "0.5", "0.5", "--size", "28"]
    place: list[Any] = ["--tiles", tmp_path, "--out", tmp_path / "out"]
    cli.main(["evaluate", *map(str, [tmp_path / "hub.pth", *place, *named, "--config-only"])])
    assert called == []
    entry = read_yaml(tmp_path / "out" / "config.yaml")["evaluation"]["weights"]["hub"]
    assert (entry["mean"], entry["sizes"], entry["path"]) == (MEAN, [28], str(tmp_path / "hub.pth"))


def test_what_is_wrong_is_said_before_anything_runs(tmp_path: Path, called: list[Path]) -> None:
    write_file(tmp_path / "hub.pth", hub_state(make_vit(init_values=1.0)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.yaml").write_text("mine: 1\n")
    write_hf_folder(make_hf("vit"), tmp_path / "phikon")
    for weights, tiles, words in [
        ("hub.pth", tmp_path, "can't tell the mean and std"),
        ("absent", tmp_path, "no such file or folder of weights"),
        ("phikon", tmp_path / "nothing", "--tiles: there is no"),
        ("phikon", tmp_path, "this command did not write it"),
    ]:
        with pytest.raises(SystemExit, match=words):
            cli.main(["evaluate", str(tmp_path / weights), "--tiles", str(tiles), "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "config.yaml").read_text() == "mine: 1\n"
    assert called == []


def test_the_status_is_that_of_the_workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "workflow_folder", lambda: tmp_path)
    (tmp_path / "Snakefile").write_text("raise SystemExit(3)\n")
    assert command.run_workflow(tmp_path / "Snakefile", ["--cores", "1"]) != 0
