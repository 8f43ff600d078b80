import copy
import errno
import itertools
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from midnight.config import Crops, Tiles
from midnight.errors import MidnightError
from midnight.tiles.predrawn import source as module
from midnight.tiles.predrawn.index import read_index
from midnight.tiles.predrawn.sampling import draw_samples, open_drawer
from midnight.tiles.predrawn.source import ShardSource, open_source
from midnight.tiles.predrawn.tars import tar_path
from midnight.tiles.predrawn.tileset import TileSet
from midnight.tiles.stream import TileStream
from tests.patience import Time
from tests.tiles.predrawn.conftest import COUNT

SHARES = {"demo": 1.0}


@pytest.fixture
def source(drawn: Path, lossless: Tiles) -> ShardSource:
    return open_source(drawn / "index.arrow", lossless, SHARES, seed=3)


@pytest.fixture
def copied(drawn: Path, lossless: Tiles, tmp_path: Path) -> ShardSource:
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    return open_source(tmp_path / "index.arrow", lossless, SHARES, seed=3)


def test_tiles_are_the_drawn_ones(
    source: ShardSource, drawn: Path, tile_set: TileSet, indexes: dict[str, Path]
) -> None:
    rows = read_index(drawn / "index.arrow").rows(source.numbers(range(COUNT)))
    with open_drawer(tile_set, indexes) as drawer:
        for row, tile in list(zip(rows, source.tiles(range(COUNT)), strict=True))[::6]:
            _, expected = next(draw_samples(drawer, [row["sample"]]))
            assert np.array_equal(tile.pixels, expected.pixels)
            assert replace(tile, pixels=None) == replace(expected, pixels=None)
            assert source.slides[tile.slide] == drawer.sampler.slides[expected.slide].slide_id


def test_each_epoch_shows_every_tile_once_in_an_order_of_its_own(source: ShardSource) -> None:
    epochs = source.numbers(range(3 * COUNT)).reshape(3, COUNT)
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs.tolist())
    assert np.mean(epochs[0] == epochs[1]) < 0.2
    assert np.mean(epochs[1] == epochs[2]) < 0.2


def test_a_sample_depends_on_its_number_alone(drawn: Path, lossless: Tiles, source: ShardSource) -> None:
    alone = open_source(drawn / "index.arrow", lossless, SHARES, seed=3)
    batch = source.tiles([7, 130, 2])
    for number, tile in zip([7, 130, 2], batch, strict=True):
        assert np.array_equal(alone.tiles([number])[0].pixels, tile.pixels)
    other = open_source(drawn / "index.arrow", lossless, SHARES, seed=4)
    assert not np.array_equal(other.numbers(range(COUNT)), source.numbers(range(COUNT)))


def test_another_process_gets_a_source_without_its_index(source: ShardSource) -> None:
    assert len(pickle.dumps(source)) < 3000
    assert np.array_equal(copy.copy(source).tiles([5])[0].pixels, source.tiles([5])[0].pixels)


def test_open_shards_stay_few(source: ShardSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPEN", 3)
    monkeypatch.setattr(module, "AHEAD", 3)
    source.tiles(range(2 * COUNT))
    assert len(source.open_shards) == 3
    source.close()
    assert not source.open_shards


def test_a_flipped_bit_is_found_and_the_shard_named(copied: ShardSource, tmp_path: Path) -> None:
    path = tar_path(tmp_path, 2)
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    with pytest.raises(MidnightError, match=r"00002\.tar: tile 16 can't be read: its checksum is wrong") as caught:
        copied.tiles(range(COUNT))
    assert "delete the file and run Snakemake with `--forcerun draw_tiles`" in str(caught.value)


def test_a_missing_or_cut_shard_is_one_clear_error(copied: ShardSource, tmp_path: Path) -> None:
    path = tar_path(tmp_path, 4)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(MidnightError, match=r"00004\.tar: tile \d+ can't be read: it is cut short"):
        copied.tiles(range(COUNT))
    copied.close()
    path.unlink()
    with pytest.raises(MidnightError, match=r"00004\.tar: No such file or directory; delete"):
        copied.tiles(range(COUNT))


def test_a_set_of_other_settings_is_refused(drawn: Path, lossless: Tiles) -> None:
    other = replace(lossless, size=128, foreground=0.5)
    with pytest.raises(MidnightError, match="by other settings than this run's: foreground, size; let Snakemake"):
        open_source(drawn / "index.arrow", other, SHARES, 0)
    with pytest.raises(MidnightError, match="cohorts"):
        open_source(drawn / "index.arrow", lossless, {"other": 1.0}, 0)
    open_source(drawn / "index.arrow", replace(lossless, hed_sigma=0.2, max_open_slides=9), {"demo": 5.0}, 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_reads_a_set_with_any_number_of_workers(
    source: ShardSource, lossless: Tiles, crops: Crops, workers: int
) -> None:
    """Past the end of an epoch, and from the middle on; augmented as tiles from slides are."""
    reference = [source.tiles(range(first, first + 20)) for first in range(20, 100, 20)]
    stream = TileStream({}, lossless, crops, 3, batch_size=20, start_step=1, source=source)
    batches = list(itertools.islice(DataLoader(stream, batch_size=None, num_workers=workers), 4))
    for batch, drawn in zip(batches, reference, strict=True):
        assert batch["x"].tolist() == [tile.x for tile in drawn]
        assert batch["slide"].tolist() == [tile.slide for tile in drawn]
        assert batch["global_crops"].shape == (20, 2, 3, 28, 28)
    assert list(stream.slides) == ["large", "small"]


def test_hed_is_applied_when_tiles_are_read(drawn: Path, lossless: Tiles, crops: Crops) -> None:
    crops_of = {}
    for sigma in (0.0, 0.3):
        tiles = replace(lossless, hed_sigma=sigma)
        stream = TileStream({}, tiles, crops, 3, 4, source=open_source(drawn / "index.arrow", tiles, SHARES, 3))
        crops_of[sigma] = next(iter(stream))["global_crops"]
    assert not torch.equal(crops_of[0.0], crops_of[0.3])


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EMFILE])
def test_faults_that_pass_are_waited_for_and_the_handle_is_opened_anew(
    drawn: Path, lossless: Tiles, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    source = open_source(drawn / "index.arrow", replace(lossless, patience=600.0), SHARES, seed=3)
    expected = [tile.pixels for tile in source.tiles(range(12))]
    time = Time()
    source._patience = time.patience()
    monkeypatch.setattr(os, "pread", failing(os.pread, {9, 10}, number))
    again = [tile.pixels for tile in source.tiles(range(12))]
    assert all(np.array_equal(old, new) for old, new in zip(expected, again, strict=True))
    assert time.now < 1
    source.close()


def failing(call: Callable[..., bytes], at: set[int], number: int) -> Callable[..., bytes]:
    """The same call, of which some fail, by their number."""
    calls = itertools.count(1)

    def pread(*arguments: int) -> bytes:
        if next(calls) in at:
            raise OSError(number, os.strerror(number))
        return call(*arguments)

    return pread
