"""Whose files are read: those of the working directory, of the Snakefile that runs, or of the package."""

from pathlib import Path

import pytest

from midnight import home
from midnight.cli import main
from midnight.config import load_recipe
from midnight.config.load import recipe_names
from midnight.config.recipes import find_recipe
from midnight.errors import ConfigError
from midnight.evaluate import registry

MODEL = "models:\n  only: {source: init, run: demo, label: Only, sizes: [28]}\n"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / "config" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which is no checkout."""
    monkeypatch.delenv(home.WORKFLOW, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_elsewhere_the_package_s_own_files_are_read(elsewhere: Path, repository: Path) -> None:
    assert home.installed() == repository
    assert home.folders() == [elsewhere, repository]
    assert home.workflow_folder() == repository
    assert registry.models_file() == repository / "config" / "models.yaml"
    assert home.project_file("config", "none.yaml") == repository / "config" / "none.yaml"


def test_a_recipe_of_the_working_directory_joins_the_project_s(elsewhere: Path) -> None:
    write(elsewhere, "recipes/mine.yaml", "# Mine.\nbase: demo\nseed: 77\n")
    assert find_recipe("mine").seed == 77
    assert find_recipe("demo") == load_recipe("demo")
    assert {"mine", "demo", "midnight-12k"} <= set(recipe_names())
    with pytest.raises(ConfigError, match="unknown recipe 'mime'; did you mean 'mine'"):
        load_recipe("mime")


def test_of_two_checkouts_each_reads_its_own(elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = write(tmp_path / "other", "models.yaml", MODEL)
    monkeypatch.setenv(home.WORKFLOW, str(tmp_path / "other"))
    assert registry.models_file() == other
    assert list(registry.load_models()) == ["only"]
    mine = write(elsewhere, "models.yaml", MODEL.replace("only", "mine"))
    assert registry.models_file() == mine
    assert list(registry.load_models()) == ["mine"]


def test_the_doctor_says_whose(
    elsewhere: Path,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path / "other", "models.yaml", MODEL)
    (tmp_path / "other" / "Snakefile").write_text("")
    (tmp_path / "other" / "src" / "midnight").mkdir(parents=True)
    monkeypatch.setenv(home.WORKFLOW, str(tmp_path / "other"))
    with pytest.raises(SystemExit):
        main(["doctor", "--configfile", str(repository / "config" / "demo.yaml")])
    said = capsys.readouterr().out
    assert f"Snakefile, config/models.yaml of {tmp_path / 'other'}" in said
    assert f"config/tasks.yaml, config/datasets.yaml of {repository}" in said
    assert f"installed from {repository}, the workflow is that of {tmp_path / 'other'}" in said
