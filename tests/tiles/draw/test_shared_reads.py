import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from midnight.config import Crops, HsvFilter, Tiles
from midnight.errors import MidnightError
from midnight.tiles.draw import shared_reads
from midnight.tiles.draw.drawer import TileDrawer
from midnight.tiles.draw.drawn import DrawnTile
from midnight.tiles.draw.hsv_filter import passes
from midnight.tiles.draw.sampler import TileSampler
from midnight.tiles.draw.shared_reads import LANES, SharedReads, cell_of, read_side, read_tiles
from midnight.tiles.read.reader import SlideReader, Window
from midnight.tiles.stream import TileStream
from midnight.tissue.resolution import SlideError
from tests.tiles.batches import batches, differences
from tests.tissue.small_slides import make_record, write_slide

PER_STEP = 6


@pytest.fixture
def tiles(tiles: Tiles) -> Tiles:
    return replace(tiles, size=32, tiles_per_read=4)


def place(tile: DrawnTile) -> tuple[int, float, int, int]:
    return tile.slide, tile.mpp, tile.x, tile.y


@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(8, 40), st.floats(0, 1, exclude_max=True), st.floats(0.5, 3.0)
)
def test_cells_part_the_grid(columns: int, rows: int, side: int, shift: float, scale: float) -> None:
    window = Window(8, 0.5, 0, 1.0, 8 * scale, columns, rows)
    cells = {
        cell_of(window, side, (shift, 1 - shift if shift else 0.0), column, row)
        for column in range(columns)
        for row in range(rows)
    }
    covered = np.zeros((rows, columns), int)
    for left, width, top, height in cells:
        assert min(left, top) >= 0
        assert min(width, height) >= 1
        covered[top : top + height, left : left + width] += 1
        assert max(width, height) - 1 + window.pixels <= max(round(side * scale), window.pixels) + 1
    assert (covered == 1).all()


def test_the_side_of_a_read() -> None:
    assert read_side(Tiles(size=256, tiles_per_read=4)) == 512
    assert read_side(Tiles(size=256, tiles_per_read=4, read_side=300)) == 300
    with pytest.raises(MidnightError, match=r"tiles\.read_side: 100 px is smaller than a tile of 256"):
        read_side(Tiles(read_side=100))


@pytest.fixture
def speckled(tmp_path: Path) -> Iterator[TileDrawer]:
    """One slide with patches of pink tissue, and of green tissue that the HSV filter rejects."""
    rng = np.random.default_rng(0)
    mask = np.kron(rng.random((5, 6)) < 0.6, np.ones((4, 4))).astype(bool)
    green = np.kron(rng.random((10, 12)) < 0.4, np.ones((16, 16))).astype(bool)
    image = np.where(green[..., None], (120, 190, 130), (205, 130, 180)).astype(np.uint8)
    path = write_slide(tmp_path / "s.svs", image, 0.5, downsamples=())
    record = replace(make_record(mask, scale=8, downsamples=(1.0,)), path=str(path))
    filtered = Tiles(size=24, mpps=(0.5,), foreground=0.4, tiles_per_read=4, hsv_filter=HsvFilter(min_fraction=0.6))
    with SlideReader(1) as reader:
        yield TileDrawer(TileSampler({"demo": ([record], 1.0)}, filtered), reader, 3)


def accepted_places(drawer: TileDrawer) -> set[tuple[int, int]]:
    """By brute force."""
    choice = drawer.sampler.draw_slide(np.random.default_rng(0))
    record, window = drawer.sampler.slides[0], choice.window
    return {
        (column, row)
        for column in range(window.columns)
        for row in range(window.rows)
        if drawer.sampler.share(choice, column, row) >= 0.4
        and passes(drawer.reader.read(record, window, column, row), drawer.sampler.tiles.hsv_filter)
    }


def test_every_tile_of_a_read_is_uniform_over_the_accepted_positions(speckled: TileDrawer) -> None:
    """Counts on an 8 × 8 raster against the accepted positions in each of its fields, for each tile of the reads."""
    truth = Counter((column // 8, row // 8) for column, row in accepted_places(speckled))
    found = [read_tiles(speckled, number, 4, 48) for number in range(1500)]
    assert 0.02 < sum(truth.values()) / (169 * 137) < 0.5
    fields = sorted(truth)
    expected = np.array([truth[field] for field in fields], float)
    for slot in range(4):
        counts = Counter((tiles[slot].x // 8, tiles[slot].y // 8) for tiles in found)
        assert set(counts) <= set(truth)
        observed = np.array([counts[field] for field in fields], float)
        order = np.argsort(expected)
        groups = np.array_split(order, 25)
        o, e = (np.array([values[group].sum() for group in groups]) for values in (observed, expected))
        assert stats.chisquare(o, e * o.sum() / e.sum()).pvalue > 1e-3
    across = [stats.ks_2samp([t[0].x for t in found], [t[slot].x for t in found]).pvalue for slot in (1, 2, 3)]
    assert min(across) > 1e-3


def test_the_tiles_of_a_read_lie_together_and_show_their_places(speckled: TileDrawer) -> None:
    record = speckled.sampler.slides[0]
    window = speckled.sampler.draw_slide(np.random.default_rng(0)).window
    distinct = 0
    for number in range(30):
        tiles = read_tiles(speckled, number, 4, 48)
        for tile in tiles:
            assert np.array_equal(tile.pixels, speckled.reader.read(record, window, tile.x, tile.y))
            assert abs(tile.x - tiles[0].x) <= 48 - 24
            assert tile.pixels.base is None or tile.pixels.base.size == tile.pixels.size
        distinct += len({place(tile) for tile in tiles})
    assert distinct > 100


def test_slides_and_mpps_have_their_shares(index: Path, tiles: Tiles) -> None:
    weighted = replace(tiles, mpps=(0.5, 1.0), mpp_weights=(3.0, 1.0))
    source = SharedReads({"demo": (index, 1.0)}, weighted, 1, PER_STEP)
    drawn = source.tiles(range(LANES * PER_STEP * 8))
    source.close()
    reads_drawn = len(drawn) / 4
    assert np.mean([tile.slide for tile in drawn]) == pytest.approx(0.5, abs=4 * 0.5 / reads_drawn**0.5)
    assert np.mean([tile.mpp == 0.5 for tile in drawn]) == pytest.approx(0.75, abs=4 * 0.43 / reads_drawn**0.5)


def test_a_batch_never_holds_two_tiles_of_one_read_and_each_read_is_decoded_once(
    index: Path, tiles: Tiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    owner: dict[int, int] = {}

    def spy(drawer: TileDrawer, number: int, count: int, side: int) -> list[DrawnTile]:
        decoded.append(number)
        found = read_tiles(drawer, number, count, side)
        owner.update({id(tile.pixels): number for tile in found})
        keep.extend(found)
        return found

    keep: list[DrawnTile] = []
    monkeypatch.setattr(shared_reads, "read_tiles", spy)
    source = SharedReads({"demo": (index, 1.0)}, tiles, 1, PER_STEP)
    given: dict[int, list[int]] = defaultdict(list)
    for step in range(3 * LANES):
        batch = [owner[id(tile.pixels)] for tile in source.tiles(range(step * PER_STEP, (step + 1) * PER_STEP))]
        assert len(set(batch)) == PER_STEP
        for number in batch:
            given[number].append(step)
    assert len(decoded) == len(set(decoded))
    assert all(set(np.diff(steps)) <= {LANES} for steps in given.values())
    held = sum(tile is not None for read in source._held.values() for tile in read.tiles)
    assert held <= LANES * PER_STEP * 3


def make_stream(index: Path, tiles: Tiles, crops: Crops, **change: Any) -> TileStream:
    """With 6 lanes, so that a few steps are several turns."""
    cohorts, settings = {"demo": (index, 1.0)}, {"seed": 5, "batch_size": 3} | change
    per_step = settings["batch_size"] * settings.get("world", 1)
    return TileStream(cohorts, tiles, crops, **settings, source=SharedReads(cohorts, tiles, 5, per_step, lanes=6))


def test_neither_workers_nor_a_resume_change_the_tiles(
    index: Path, tiles: Tiles, crops: Crops, caplog: pytest.LogCaptureFixture
) -> None:
    whole = batches(make_stream(index, tiles, crops), 16)
    for workers in (1, 2, 3, 4):
        assert differences(batches(make_stream(index, tiles, crops), 16, workers), whole) == []
    for start, workers in ((1, 0), (7, 0), (9, 2)):
        resumed = batches(make_stream(index, tiles, crops, start_step=start), 16 - start, workers)
        assert differences(resumed, whole[start:]) == []
    assert len({tuple(batch["x"].tolist()) for batch in whole}) == 16


def test_ranks_share_a_global_batch(index: Path, tiles: Tiles, crops: Crops) -> None:
    alone = batches(make_stream(index, tiles, crops, batch_size=6), 8)
    ranks = [batches(make_stream(index, tiles, crops, rank=rank, world=2), 8) for rank in range(2)]
    for step, batch in enumerate(alone):
        assert differences([batch], [{name: torch.cat([rank[step][name] for rank in ranks]) for name in batch}]) == []


def test_a_slide_that_breaks_is_left_out(
    index: Path, tiles: Tiles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = SharedReads({"demo": (index, 1.0)}, tiles, 1, PER_STEP)
    region = SlideReader.region

    def broken(reader: SlideReader, record: Any, *place: Any) -> Any:
        if record.slide_id == source.slides[0]:
            raise SlideError("cut off")
        return region(reader, record, *place)

    monkeypatch.setattr(SlideReader, "region", broken)
    with caplog.at_level(logging.WARNING):
        drawn = source.tiles(range(40))
    assert {tile.slide for tile in drawn} == {1}
    assert caplog.text.count("is left out: cut off") == 1
