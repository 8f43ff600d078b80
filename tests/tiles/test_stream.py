import itertools
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import DataLoader

from midnight.config import Crops, HsvFilter, Tiles
from midnight.errors import MidnightError
from midnight.tiles.hsv_filter import passes
from midnight.tiles.reader import SlideReader
from midnight.tiles.rng import Purpose, generator
from midnight.tiles.sampler import TileSampler
from midnight.tiles.stream import TileDrawer, TileStream
from midnight.tissue.index import training_slides
from tests.tissue.small_slides import make_index, write_slide

BATCH = 3


@pytest.fixture
def settings(index: Path, tiles: Tiles, crops: Crops) -> dict[str, Any]:
    return {"cohorts": {"demo": (index, 1.0)}, "tiles": tiles, "crops": crops, "seed": 5, "batch_size": BATCH}


def batches(stream: TileStream, count: int, workers: int = 0) -> list[dict[str, torch.Tensor]]:
    return list(itertools.islice(DataLoader(stream, batch_size=BATCH, num_workers=workers), count))


def equal(first: list[dict[str, torch.Tensor]], second: list[dict[str, torch.Tensor]]) -> bool:
    return len(first) == len(second) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(first, second, strict=True)
    )


def test_a_batch_is_what_it_says(settings: dict[str, Any]) -> None:
    stream = TileStream(**settings)
    batch = batches(stream, 1)[0]
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in batch.items()}
    assert shapes == {
        "global_crops": ((BATCH, 2, 3, 28, 28), torch.uint8),
        "local_crops": ((BATCH, 3, 3, 14, 14), torch.uint8),
        "slide": ((BATCH,), torch.int64),
        "cohort": ((BATCH,), torch.int64),
        "mpp": ((BATCH,), torch.float64),
        "x": ((BATCH,), torch.int64),
        "y": ((BATCH,), torch.int64),
        "index": ((BATCH,), torch.int64),
    }
    assert batch["index"].tolist() == [0, 1, 2]
    assert {record.slide_id for record in stream.slides} == {"large", "small"}
    assert stream.cohorts == ["demo"]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_does_not_matter(settings: dict[str, Any], workers: int) -> None:
    assert equal(batches(TileStream(**settings), 5), batches(TileStream(**settings), 5, workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_goes_on_where_it_stopped(settings: dict[str, Any], workers: int) -> None:
    resumed = batches(TileStream(**settings, start_step=3), 2, workers)
    assert equal(batches(TileStream(**settings), 5)[3:], resumed)


def test_ranks_share_the_samples_of_one_process(settings: dict[str, Any]) -> None:
    alone = batches(TileStream(**settings), 4)
    ranks = [batches(TileStream(**settings, rank=rank, world=2), 2) for rank in range(2)]
    assert equal(alone, [ranks[0][0], ranks[1][0], ranks[0][1], ranks[1][1]])


def test_another_seed_gives_other_tiles(settings: dict[str, Any]) -> None:
    assert not equal(batches(TileStream(**settings), 1), batches(TileStream(**settings | {"seed": 6}), 1))


def test_augmentation_leaves_the_places_alone(settings: dict[str, Any]) -> None:
    changed = settings | {"crops": Crops(global_size=14, local_size=7, n_local=1)}
    changed["tiles"] = replace(settings["tiles"], hed_sigma=0.3)
    first, second = batches(TileStream(**settings), 3), batches(TileStream(**changed), 3)
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in ("slide", "x", "y", "mpp"))


@pytest.fixture
def drawer(index: Path, tiles: Tiles) -> Iterator[TileDrawer]:
    sampler = TileSampler({"demo": (training_slides(index), 1.0)}, tiles)
    with SlideReader(2) as reader:
        yield TileDrawer(sampler, reader)


def test_every_tile_passes_both_filters_and_shows_its_place(drawer: TileDrawer, images: dict[str, np.ndarray]) -> None:
    seen = set()
    for number in range(60):
        tile = drawer.draw(generator(0, number, Purpose.PLACE))
        assert passes(tile.pixels, HsvFilter())
        name = drawer.sampler.slides[tile.slide].slide_id
        side = round(64 * tile.mpp / 0.5)
        ground = images[name][tile.y : tile.y + side, tile.x : tile.x + side]
        assert ground.shape == (side, side, 3)
        assert np.abs(ground.mean((0, 1)) - tile.pixels.mean((0, 1))).max() < 6
        tissue = (ground.max(2).astype(int) - ground.min(2)) > 20
        assert tissue.mean() > 0.3
        seen.add((name, tile.mpp))
    assert len(seen) >= 5


def test_slides_keep_their_share_under_the_filter(drawer: TileDrawer) -> None:
    slides = [drawer.draw(generator(1, number, Purpose.PLACE)).slide for number in range(300)]
    assert np.mean(slides) == pytest.approx(0.5, abs=0.12)


def test_a_slide_that_vanishes_is_left_out_and_the_stream_goes_on(
    index: Path, tmp_path: Path, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    paths = [shutil.copy(record.path, tmp_path) for record in training_slides(index)]
    copied = make_index(tmp_path, [Path(path) for path in paths])
    stream = TileStream(**settings | {"cohorts": {"demo": (copied, 1.0)}})
    iterator = iter(stream)
    before = [next(iterator)["slide"] for _ in range(20)]
    assert set(before) == {0, 1}
    gone = stream.slides[0]
    Path(gone.path).unlink()
    with caplog.at_level(logging.WARNING):
        again = iter(TileStream(**settings | {"cohorts": {"demo": (copied, 1.0)}}))
        after = [next(again)["slide"] for _ in range(20)]
    assert set(after) == {1}
    assert [record.getMessage() for record in caplog.records] == [f"slide {gone.slide_id} is left out: no such file"]
    assert [new for old, new in zip(before, after, strict=True) if old == 1] == [1] * before.count(1)


def test_when_all_slides_vanish_the_stream_ends_with_one_line(
    tmp_path: Path, images: dict[str, np.ndarray], settings: dict[str, Any]
) -> None:
    path = write_slide(tmp_path / "one.svs", images["large"], 0.5)
    stream = TileStream(**settings | {"cohorts": {"demo": (make_index(tmp_path, [path]), 1.0)}})
    path.unlink()
    with pytest.raises(MidnightError, match="no tile was accepted on 64 slides") as caught:
        next(iter(stream))
    assert "1 of them can't be read" in str(caught.value)


def test_a_filter_that_rejects_everything_ends_with_one_line(settings: dict[str, Any]) -> None:
    strict = replace(settings["tiles"], mpps=(2.0,), hsv_filter=HsvFilter(hue=(10, 12)))
    with pytest.raises(MidnightError, match=r"lower tiles\.foreground or tiles\.hsv_filter\.min_fraction"):
        next(iter(TileStream(**settings | {"tiles": strict})))


def test_an_index_without_slides_is_refused_at_once(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(MidnightError, match="no slide to train on"):
        TileStream(**settings | {"cohorts": {"demo": (make_index(tmp_path, []), 1.0)}})


def test_open_files_stay_few(settings: dict[str, Any]) -> None:
    stream = iter(TileStream(**settings | {"tiles": replace(settings["tiles"], max_open_slides=1)}))
    for _ in range(5):
        next(stream)
    before = psutil.Process().num_fds()
    for _ in range(40):
        next(stream)
    assert psutil.Process().num_fds() <= before + 1
    assert len([file for file in psutil.Process().open_files() if file.path.endswith(".svs")]) <= 1
