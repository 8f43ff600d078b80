import os
from pathlib import Path

import pytest
import yaml

from midnight.config import plain
from midnight.errors import MidnightError
from midnight.hashing import hash_file
from midnight.ssl.checkpoint.foresight import foresee
from midnight.ssl.checkpoint.identity import resolved_config
from midnight.ssl.checkpoint.init_file import RECORD, init_file, record_of, recorded
from midnight.ssl.checkpoint.run_key import decisive_recipe, run_key
from tests.ssl.tiny import tiny_recipe


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "w.pth"
    path.write_bytes(b"one")
    os.utime(path, ns=(10**18, 10**18))
    return path


@pytest.mark.parametrize("init", ["random", "pretrained", "run:parent"])
def test_what_names_no_file(init: str) -> None:
    assert init_file(init) is None and record_of(init) is None


def test_a_file_is_known_by_its_content(weights: Path) -> None:
    record = record_of(str(weights))
    assert record == {"path": str(weights), "bytes": 3, "mtime_ns": 10**18, "sha256": hash_file(weights)}


def test_no_byte_is_read_where_size_and_time_are_the_same(weights: Path) -> None:
    known = {**(record_of(str(weights)) or {}), "sha256": "as before"}
    assert (record_of(str(weights), known) or {})["sha256"] == "as before"
    os.utime(weights, ns=(2 * 10**18, 2 * 10**18))
    assert (record_of(str(weights), known) or {})["sha256"] == hash_file(weights)


def test_of_a_file_that_is_away_what_was_recorded_stays(weights: Path) -> None:
    known = record_of(str(weights))
    weights.unlink()
    assert record_of(str(weights), known) == known
    with pytest.raises(MidnightError, match=r"backbone\.init: .*w\.pth: can't be read: No such file"):
        record_of(str(weights))
    with pytest.raises(MidnightError, match=r"other\.pth: can't be read"):
        record_of(str(weights.with_name("other.pth")), known)


def run_of(weights: Path) -> Path:
    """A run that has done 11 steps from a file."""
    folder = weights.parent / "own"
    (folder / "checkpoints" / "step_00000011").mkdir(parents=True)
    config = resolved_config(tiny_recipe(backbone={"init": str(weights)}), {}, None, "demo")
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"hash": run_key(config)}))
    return folder


def params(weights: Path, folder: Path) -> dict[str, object]:
    """What the rule compares."""
    recipe = plain(tiny_recipe(backbone={"init": str(weights)}))
    return decisive_recipe(recipe, record_of(str(weights), recorded(folder / "config.yaml")))


def test_a_replaced_file_is_another_run_and_said_beforehand(weights: Path) -> None:
    folder = run_of(weights)
    before = params(weights, folder)
    assert foresee(folder, tiny_recipe(backbone={"init": str(weights)})) == ""
    weights.write_bytes(b"two")
    assert params(weights, folder) != before
    line = foresee(folder, tiny_recipe(backbone={"init": str(weights)}))
    assert "backbone.init sha256:" in line and "begins anew at step 0" in line


def test_a_moved_or_touched_file_is_the_same_run(weights: Path) -> None:
    folder = run_of(weights)
    before = params(weights, folder)
    os.utime(weights)
    assert params(weights, folder) == before
    moved = weights.rename(weights.with_name("moved.pth"))
    assert params(moved, folder) == before
    assert foresee(folder, tiny_recipe(backbone={"init": str(moved)})) == ""


def test_config_yaml_without_a_record(tmp_path: Path) -> None:
    assert recorded(tmp_path / "config.yaml") is None
    (tmp_path / "config.yaml").write_text(f"{RECORD}: nothing\n")
    assert recorded(tmp_path / "config.yaml") is None
