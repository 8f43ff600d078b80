import tarfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from midnight.errors import MidnightError
from midnight.tiles.folders.listing import find_images, is_tile_list, list_tiles, read_list
from midnight.tiles.folders.look import look
from midnight.tissue.index import index_identity
from tests.tiles.folders.images import write_images


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five images: three files at two depths, two in a tar."""
    root = tmp_path / "root"
    write_images(root, ["a.png", "deep/er/b.jpg", "c.PNG"])
    write_images(tmp_path / "packed", ["1.jpg", "2.jpg"])
    with tarfile.open(root / "shard-0.tar", "w") as archive:
        for path in sorted((tmp_path / "packed").iterdir()):
            archive.add(path, path.name)
            (tmp_path / "label.json").write_text("{}")
            archive.add(tmp_path / "label.json", f"{path.stem}.json")
    return root


def listed(root: Path, output: Path) -> list[dict[str, object]]:
    list_tiles(root, output, 2)
    return pq.read_table(output).to_pylist()


def test_images_are_found_at_any_depth_and_in_tars(root: Path, tmp_path: Path) -> None:
    rows = listed(root, tmp_path / "own.tiles.parquet")
    assert [row["file"] for row in rows] == ["a.png", "c.PNG", "shard-0.tar", "shard-0.tar", "deep/er/b.jpg"]
    assert {(row["width"], row["height"]) for row in rows} == {(40, 32)}
    data = (root / "shard-0.tar").read_bytes()
    inside = [row for row in rows if row["file"] == "shard-0.tar"]
    assert [data[row["offset"] : row["offset"] + row["bytes"]] for row in inside] == [
        (tmp_path / "packed" / name).read_bytes() for name in ("1.jpg", "2.jpg")
    ]
    assert read_list(tmp_path / "own.tiles.parquet").root == root
    assert is_tile_list(tmp_path / "own.tiles.parquet") and not is_tile_list(tmp_path / "index.parquet")


def test_a_link_back_is_followed_once(root: Path, tmp_path: Path) -> None:
    (root / "deep" / "back").symlink_to(root)
    assert len(listed(root, tmp_path / "own.tiles.parquet")) == 5


def test_what_cannot_be_read_is_left_out_and_named(root: Path, tmp_path: Path) -> None:
    (root / "broken.jpg").write_bytes(b"<html>no image</html>")
    (root / "cut.png").write_bytes(b"")
    (root / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "notes.txt").write_text("notes")
    (root / "more.tar.gz").write_bytes(b"x")
    (root / "bad.tar").write_bytes(b"no tar at all")
    assert len(listed(root, tmp_path / "own.tiles.parquet")) == 5
    refused = dict(read_list(tmp_path / "own.tiles.parquet").refused)
    assert refused.pop("bad.tar").startswith("can't be read as tar")
    assert refused == {
        "broken.jpg": "not an image",
        "cut.png": "not an image",
        "gone.png": "is a link to nothing",
        "more.tar.gz": "is compressed: unpack it, or make a plain .tar of it",
    }


def test_a_folder_is_known_by_its_content_not_by_its_place(root: Path, tmp_path: Path) -> None:
    listed(root, tmp_path / "one.tiles.parquet")
    first, before = index_identity(tmp_path / "one.tiles.parquet"), look(root)
    moved = root.rename(tmp_path / "moved")
    listed(moved, tmp_path / "two.tiles.parquet")
    assert index_identity(tmp_path / "two.tiles.parquet") == first
    cv2.imwrite(str(moved / "a.png"), np.full((32, 40, 3), 7, np.uint8))
    listed(moved, tmp_path / "two.tiles.parquet")
    assert index_identity(tmp_path / "two.tiles.parquet") != first
    assert look(moved) != before


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MidnightError, match="no image to train on in 0 files"):
        list_tiles(tmp_path, tmp_path / "x.tiles.parquet", 1)
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(MidnightError, match=r"no image to train on in 1 files .*a\.jpg: not an image"):
        list_tiles(tmp_path, tmp_path / "x.tiles.parquet", 1)
    with pytest.raises(MidnightError, match=r"nowhere: can't be read: No such file"):
        find_images(tmp_path / "nowhere")
    (tmp_path / "x.tiles.parquet").write_bytes(b"PAR1")
    with pytest.raises(MidnightError, match="no list of tiles"):
        read_list(tmp_path / "x.tiles.parquet")
