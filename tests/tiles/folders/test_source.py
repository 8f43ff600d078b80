import logging
import pickle
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.config import HsvFilter, Tiles
from midnight.errors import MidnightError
from midnight.tiles.folders.listing import list_tiles
from midnight.tiles.folders.source import SLOTS, FolderSource, share_slots
from tests.tiles.folders.images import write_images, write_listed

TILES = Tiles(size=32, hsv_filter=None, patience=0.0)


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_listed(tmp_path_factory.mktemp("ten"), 10)


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_listed(tmp_path_factory.mktemp("seven"), 7, seed=1)


def test_each_image_comes_once_per_epoch_in_an_order_of_its_own(ten: Path) -> None:
    source = FolderSource({"ten": (ten, 1.0)}, TILES, 3)
    orders = [[source.place(index)[1] for index in range(epoch * 10, epoch * 10 + 10)] for epoch in range(4)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    other = FolderSource({"ten": (ten, 1.0)}, TILES, 4)
    assert [other.place(index)[1] for index in range(10)] != orders[0]


def test_folders_have_their_shares_and_each_its_epochs(ten: Path, seven: Path) -> None:
    source = FolderSource({"seven": (seven, 1.0), "ten": (ten, 3.0)}, TILES, 0)
    places = [source.place(index) for index in range(2 * SLOTS)]
    assert Counter(folder for folder, _ in places) == {0: 500, 1: 1500}
    for folder, length in ((0, 7), (1, 10)):
        images = [image for found, image in places if found == folder]
        epochs = [images[start : start + length] for start in range(0, len(images) - length, length)]
        assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
    early = Counter(folder for folder, _ in places[:100])
    assert 10 < early[0] < 40, "shares hold in short pieces too"


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20), st.integers(0, 2**32))
def test_slots_follow_the_shares_and_leave_no_folder_out(shares: list[float], seed: int) -> None:
    counts = np.bincount(share_slots(shares, seed), minlength=len(shares))
    exact = np.array(shares) / sum(shares) * SLOTS
    assert counts.sum() == SLOTS and counts.min() >= 1
    assert (counts[exact >= 1] - exact[exact >= 1] > -len(shares)).all()
    if exact.min() >= 1:
        assert np.abs(counts - exact).max() <= 1 + 1e-6


def test_many_folders_have_slots_enough() -> None:
    counts = np.bincount(share_slots([1.0] * 1500, 0))
    assert len(counts) == 1500 and set(counts) == {10}


def test_a_tile_is_a_function_of_seed_and_number(ten: Path) -> None:
    source = FolderSource({"ten": (ten, 1.0)}, TILES, 0)
    first = source.tiles(range(12))
    sent = pickle.loads(pickle.dumps(source))  # noqa: S301 (our own)
    for one, other in zip(first, reversed(sent.tiles(range(11, -1, -1))), strict=True):
        assert np.array_equal(one.pixels, other.pixels) and (one.x, one.y) == (other.x, other.y)
    assert all(tile.pixels.shape == (32, 32, 3) and 0 <= tile.x <= 8 and tile.y == 0 for tile in first)
    assert len({tile.x for tile in first}) > 1, "of 40 x 32 px a random square"
    assert sorted({tile.slide for tile in first}) == list(range(10)) and len(source.slides) == 10
    assert source.slides[3] == "ten/0003.png"
    source.close()


def test_images_that_fail_the_filter_are_left_out(tmp_path: Path) -> None:
    path = write_listed(tmp_path, 4)
    cv2.imwrite(str(tmp_path / "images" / "0001.png"), np.full((32, 40, 3), 255, np.uint8))
    list_tiles(tmp_path / "images", path, 1)
    source = FolderSource({"own": (path, 1.0)}, Tiles(size=32), 0)
    assert {tile.slide for tile in source.tiles(range(40))} == {0, 2, 3}
    with pytest.raises(MidnightError, match=r"tile_folders\.own: 64 images in a row fail tiles\.hsv_filter"):
        FolderSource({"own": (path, 1.0)}, Tiles(size=32, hsv_filter=HsvFilter(hue=(10, 12))), 0).tiles([0])


def test_smaller_images_are_left_out_and_all_smaller_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path / "images", ["small.png"], 20, 20)
    path = write_listed(tmp_path, 4)
    with caplog.at_level(logging.WARNING):
        source = FolderSource({"own": (path, 1.0)}, TILES, 0)
    assert "tile_folders.own: 1 of 5 images are smaller than 32 px" in caplog.text
    assert len(source.slides) == 4
    with pytest.raises(MidnightError, match=r"are at most 32 px, smaller than tiles of 256: override tiles.size: 32"):
        FolderSource({"own": (path, 1.0)}, Tiles(), 0)


def test_a_changed_or_missing_image_stops_the_run_by_name(tmp_path: Path) -> None:
    path = write_listed(tmp_path, 2)
    images = sorted((tmp_path / "images").iterdir())
    images[0].write_bytes(images[1].read_bytes()[: images[0].stat().st_size])
    images[1].unlink()
    source = FolderSource({"own": (path, 1.0)}, TILES, 0)
    reasons = {}
    for index in range(2):
        with pytest.raises(MidnightError) as caught:
            source.tiles([index])
        name, _, reason = str(caught.value).partition(": ")
        reasons[Path(name).name] = reason
    assert reasons["0000.png"].startswith("has changed since it was listed; run Snakemake again")
    assert reasons["0001.png"].startswith("No such file or directory; run Snakemake again")


def handles() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_few_files_are_open_at_a_time(ten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midnight.tiles.folders.source.MAX_OPEN", 3)
    source = FolderSource({"ten": (ten, 1.0)}, TILES, 0)
    before = handles()
    source.tiles(range(30))
    assert handles() == before + 3
    source.close()
    assert handles() == before
