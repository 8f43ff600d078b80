import contextlib
import json
import logging
import resource
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from midnight.errors import MidnightError
from midnight.hashing import hash_file, hash_value
from midnight.ssl.checkpoint import checkpoints as checkpoint
from midnight.ssl.checkpoint.checkpoints import Checkpoints
from midnight.ssl.checkpoint.pieces import Piece, write_pieces


def save(checkpoints: Checkpoints, step: int, size: int = 10) -> Path:
    return checkpoints.save(step, {"w": torch.full((size,), float(step))}, {"count": step, "seconds": 0.1 + step})


@contextlib.contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """No file may grow beyond `limit` bytes: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_saved_comes_back_and_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", "key", keep=2)
    for step in (5, 10, 15):
        save(checkpoints, step)
    assert [path.name for path in checkpoints.paths()] == ["step_00000010", "step_00000015"]
    newest = checkpoints.newest()
    assert newest is not None
    assert (newest.step, newest.state) == (15, {"count": 15, "seconds": 15.1})
    assert torch.equal(newest.tensors["w"], torch.full((10,), 15.0))


@pytest.mark.parametrize("name", ["shard-00000.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_newest_falls_back_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    checkpoints = Checkpoints(tmp_path / "c", "key", keep=3)
    save(checkpoints, 5)
    path = save(checkpoints, 10) / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
        path.write_bytes(content[:middle] if damage == "truncated" else flipped)
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 5
    assert "step_00000010 is damaged" in caplog.text
    save(checkpoints, 10)
    again = checkpoints.newest()
    assert again is not None
    assert again.step == 10


def test_nothing_good_is_a_fresh_start(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", "key", keep=3)
    assert checkpoints.newest() is None
    (save(checkpoints, 5) / "shard-00000.safetensors").unlink()
    assert checkpoints.newest() is None


def test_another_configuration_is_moved_aside_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(Checkpoints(tmp_path / "c", "0ld", keep=3), 5)
    with caplog.at_level(logging.WARNING):
        assert Checkpoints(tmp_path / "c", "new", keep=3).newest() is None
    assert "0ld" in caplog.text
    assert "new" in caplog.text
    assert (tmp_path / "c.0ld" / "step_00000005").is_dir()
    assert not (tmp_path / "c").exists()


def test_progress_is_found_by_its_key_and_never_deleted(tmp_path: Path) -> None:
    """Old to new, back, and to a third: 11 steps used to be gone."""
    save(Checkpoints(tmp_path / "c", "0ld", keep=3), 11)
    new = Checkpoints(tmp_path / "c", "new", keep=3)
    assert new.newest() is None
    save(new, 2)
    back = Checkpoints(tmp_path / "c", "0ld", keep=3).newest()
    assert back is not None and back.step == 11
    assert Checkpoints(tmp_path / "c", "third", keep=3).newest() is None
    again = Checkpoints(tmp_path / "c", "new", keep=3).newest()
    assert again is not None and again.step == 2
    again = Checkpoints(tmp_path / "c", "0ld", keep=3).newest()
    assert again is not None and again.step == 11


def test_what_is_damaged_does_not_hide_what_was_set_aside(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path / "c", "0ld", keep=3), 11)
    new = Checkpoints(tmp_path / "c", "new", keep=3)
    assert new.newest() is None
    (save(new, 2) / "checkpoint.json").write_text("{")
    found = Checkpoints(tmp_path / "c", "0ld", keep=3).newest()
    assert found is not None and found.step == 11
    assert (tmp_path / "c.damaged" / "step_00000002.damaged").is_dir()


@pytest.mark.parametrize("limit", [100, 30_000])
def test_full_disk_is_one_line_and_leaves_the_previous_checkpoint(tmp_path: Path, limit: int) -> None:
    checkpoints = Checkpoints(tmp_path / "c", "key", keep=1)
    save(checkpoints, 5)
    with small_disk(limit), pytest.raises(MidnightError, match=r"step_00000010: checkpoint can't be written") as caught:
        checkpoints.save(10, {"w": torch.ones(10_000)}, {})
    assert "\n" not in str(caught.value)
    assert "step_00000005" in str(caught.value)
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 5
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step_00000005"]


def test_a_write_that_was_killed_leaves_no_trace(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", "key", keep=3)
    save(checkpoints, 5)
    (tmp_path / "c" / ".writing-x").mkdir()
    assert checkpoints.newest() is not None
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step_00000005"]


def test_a_checkpoint_has_nothing_that_is_unpickled(tmp_path: Path) -> None:
    """Reading a pickle runs code; a shard that is one counts as damage, however right its checksum."""
    checkpoints = Checkpoints(tmp_path / "c", "key", keep=3)
    path = save(checkpoints, 5)
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}
    torch.save({"w": torch.ones(1)}, path / "shard-00000.safetensors")
    card = json.loads((path / "checkpoint.json").read_text())
    card.pop("sha256")
    card["files"]["shard-00000.safetensors"] = hash_file(path / "shard-00000.safetensors")
    (path / "checkpoint.json").write_text(json.dumps(card | {"sha256": hash_value(card)}))
    assert checkpoints.newest() is None


def test_a_card_that_was_changed_is_damage(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", "key", keep=3)
    path = save(checkpoints, 5) / "checkpoint.json"
    path.write_text(path.read_text().replace('"count": 5', '"count": 6'))
    assert checkpoints.newest() is None


def test_some_are_kept_for_good(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", "key", keep=2, keep_every=6)
    for step in (4, 8, 10, 12, 16, 20, 22, 26, 28):
        save(checkpoints, step)
    assert [int(path.name[5:]) for path in checkpoints.paths()] == [8, 12, 20, 26, 28]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved is the state when the save started; until it is complete the folder does not count."""
    gate = threading.Event()

    def slow(path: Path, pieces: Mapping[str, Piece]) -> None:
        assert gate.wait(60)
        write_pieces(path, pieces)

    monkeypatch.setattr(checkpoint, "write_pieces", slow)
    checkpoints, weight = Checkpoints(tmp_path / "c", "key", keep=3), torch.ones(3)
    checkpoints.start(5, {"w": weight}, {})
    weight.fill_(7.0)
    assert checkpoints.writing()
    assert checkpoints.paths() == []
    gate.set()
    checkpoints.finish()
    assert not checkpoints.writing()
    newest = checkpoints.newest()
    assert newest is not None
    assert torch.equal(newest.tensors["w"], torch.ones(3))


def test_the_next_save_waits_for_the_last(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", "key", keep=3)
    checkpoints.start(5, {"w": torch.ones(3)}, {})
    checkpoints.start(10, {"w": torch.ones(3)}, {})
    assert [path.name for path in checkpoints.paths()] == ["step_00000005"]
    checkpoints.close()
    assert [path.name for path in checkpoints.paths()] == ["step_00000005", "step_00000010"]
