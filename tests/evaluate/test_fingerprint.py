import json
from pathlib import Path

import pytest
import torch

from midnight.errors import MidnightError
from midnight.evaluate.fingerprint import EDGE, hash_data, hash_folder, hash_state


def test_names_and_bytes_of_small_files_count(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"1" * 100)
    first = hash_data(tmp_path)
    assert hash_data(tmp_path) == first
    (tmp_path / "a" / ".hidden").write_bytes(b"2")
    assert hash_data(tmp_path) == first
    (tmp_path / "a" / "x.png").write_bytes(b"1" * 99 + b"2")
    assert hash_data(tmp_path) != first
    (tmp_path / "a" / "x.png").write_bytes(b"1" * 100)
    (tmp_path / "a" / "x.png").rename(tmp_path / "a" / "y.png")
    assert hash_data(tmp_path) != first


@pytest.mark.parametrize("place", [0, EDGE - 1, EDGE, 2 * EDGE - 1])
def test_every_byte_counts_up_to_two_edges(tmp_path: Path, place: int) -> None:
    content = bytearray(2 * EDGE)
    (tmp_path / "x").write_bytes(content)
    first = hash_data(tmp_path)
    content[place] = 1
    (tmp_path / "x").write_bytes(content)
    assert hash_data(tmp_path) != first


def test_linked_folders_count_and_archives_beside_the_data_do_not(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    elsewhere.mkdir()
    (elsewhere / "x.png").write_bytes(b"1")
    (data / "train").symlink_to(elsewhere)
    first = hash_data(data)
    (data / "archive.zip").write_bytes(b"2")
    assert hash_data(data) == first
    (elsewhere / "x.png").write_bytes(b"3")
    assert hash_data(data) != first


def test_no_folder_no_files(tmp_path: Path) -> None:
    with pytest.raises(MidnightError, match="is empty"):
        hash_data(tmp_path)
    with pytest.raises(MidnightError, match="no such folder"):
        hash_data(tmp_path / "absent")


def test_state_dicts() -> None:
    state = {"b": torch.ones(2, 2), "a": torch.zeros(3)}
    assert hash_state(state) == hash_state(dict(reversed(state.items())))
    assert hash_state(state) != hash_state(state | {"b": torch.ones(4)})
    assert hash_state(state) != hash_state(state | {"a": torch.tensor([0.0, 0, 1])})


def test_a_model_folder_needs_both_files(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"arch": "x"}))
    with pytest.raises(MidnightError, match="no usable"):
        hash_folder(tmp_path)
