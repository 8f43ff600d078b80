import json
import shutil
from pathlib import Path

import pytest

from midnight.ssl.checkpoint.finished import finished_step, keep, put_back


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that is finished, with its checkpoints."""
    write(tmp_path / "own", "old", 8)
    return tmp_path / "own"


def write(folder: Path, content: str, step: int) -> None:
    (folder / "checkpoints" / f"step_{step:08d}").mkdir(parents=True)
    for name in ("teacher.safetensors", "metrics.jsonl", "config.yaml"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(content)
    (folder / "model.json").unlink(missing_ok=True)
    (folder / "model.json").write_text(json.dumps({"step": step}))


def test_a_finished_model_costs_no_disk_and_outlives_the_rules_outputs(run: Path) -> None:
    kept = keep(run, "aaa")
    assert (kept / "teacher.safetensors").stat().st_ino == (run / "teacher.safetensors").stat().st_ino
    for name in ("teacher.safetensors", "model.json"):  # as Snakemake does before a job
        (run / name).unlink()
    assert put_back(run, "aaa", 8, "aaa")
    assert (run / "teacher.safetensors").read_text() == "old"
    assert json.loads((run / "model.json").read_text()) == {"step": 8}


def test_curves_that_go_on_do_not_change_the_kept_ones(run: Path) -> None:
    kept = keep(run, "aaa")
    with open(run / "metrics.jsonl", "a") as file:
        file.write("more")
    assert (kept / "metrics.jsonl").read_text() == "old"


def test_there_and_back_again_with_all_progress(run: Path) -> None:
    keep(run, "aaa")
    shutil.rmtree(run / "checkpoints")  # cleaned to save disk
    write(run, "new", 5)
    assert put_back(run, "aaa", 8, "bbb")
    assert (run / "metrics.jsonl").read_text() == "old"
    assert (run / "checkpoints.bbb" / "step_00000005").is_dir()
    assert (run / "checkpoints.bbb" / "metrics.jsonl").read_text() == "new"


def test_a_longer_training_replaces_the_shorter_of_the_same_values(run: Path) -> None:
    keep(run, "aaa")
    write(run, "longer", 16)
    keep(run, "aaa")
    assert finished_step(run, "aaa") == 16
    assert not put_back(run, "aaa", 8, "aaa"), "another length is trained, or refused"


@pytest.mark.parametrize("card", ["", "[]", "{}"])
def test_what_is_not_whole_is_none(run: Path, card: str) -> None:
    kept = keep(run, "aaa")
    (kept / "model.json").unlink()
    (kept / "model.json").write_text(card)
    assert finished_step(run, "aaa") == 0
    assert not put_back(run, "aaa", 8, "aaa")


def test_a_file_system_without_links(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", refuse)
    assert (keep(run, "aaa") / "teacher.safetensors").read_text() == "old"
