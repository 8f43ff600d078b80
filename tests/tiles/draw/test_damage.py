"""Slides that are damaged in parts: what is drawn of them is the same whatever the number of processes."""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midnight.config import Crops, Predrawn, Tiles
from midnight.tiles.draw.drawer import DAMAGED, TileDrawer
from midnight.tiles.draw.lost_slides import DAMAGED as DAMAGED_FILE
from midnight.tiles.draw.lost_slides import Quarantine, read_quarantine
from midnight.tiles.draw.sampler import TileSampler
from midnight.tiles.draw.shared_reads import SharedReads
from midnight.tiles.predrawn.sampling import draw_samples, open_drawer
from midnight.tiles.predrawn.tileset import TileSet
from midnight.tiles.read.reader import SlideReader
from midnight.tiles.stream import TileStream
from midnight.tissue.index import training_slides
from tests.tiles.batches import batches, differences
from tests.tiles.read.damaged import damage, tiles_of
from tests.tissue.small_slides import make_index, tissue_image, write_slide

SIZE = 48
CROPS = Crops(global_size=14, local_size=7, n_local=1)


def make_slides(folder: Path, compressions: Sequence[str] = ("jpeg", "deflate")) -> Path:
    """An index of two slides, one read straight from the file and one through OpenSlide."""
    image = tissue_image(960, 960, [(40, 40, 880, 880)], seed=1)
    paths = [write_slide(folder / f"{name}.svs", image, 0.5, compression=name) for name in compressions]
    return make_index(folder, paths)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return make_slides(tmp_path)


@pytest.fixture
def tiles() -> Tiles:
    return Tiles(size=SIZE, mpps=(0.5, 1.0), hsv_filter=None, patience=0)


@contextlib.contextmanager
def open_slides(index: Path, tiles: Tiles, record: Path | None = None) -> Iterator[TileDrawer]:
    sampler = TileSampler({"demo": (training_slides(index), 1.0)}, tiles)
    with contextlib.closing(TileDrawer(sampler, SlideReader(2, sampler.patience), 0, Quarantine(record))) as drawer:
        yield drawer


def drawn(index: Path, tiles: Tiles, numbers: Sequence[int]) -> dict[int, tuple[int, float, int, int]]:
    """By a process of its own, as it were."""
    with open_slides(index, tiles) as drawer:
        return places(drawer, numbers)


def places(drawer: TileDrawer, numbers: Sequence[int]) -> dict[int, tuple[int, float, int, int]]:
    found = {number: drawer.draw(number) for number in numbers}
    return {number: (tile.slide, tile.mpp, tile.x, tile.y) for number, tile in found.items()}


@pytest.mark.parametrize("slide", ["jpeg", "deflate"])
def test_one_damaged_tile_costs_only_the_positions_that_touch_it(
    index: Path, tiles: Tiles, tmp_path: Path, slide: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = drawn(index, tiles, range(120))
    path = tmp_path / f"{slide}.svs"
    damage(path, [5])  # of 4 × 4 of 240 px: x and y from 240 to 480
    with open_slides(index, tiles, tmp_path / "quarantined.tsv") as drawer:
        after = places(drawer, range(120))
    number = next(n for n, record in enumerate(drawer.sampler.slides) if record.path == str(path))
    changed = {n for n in before if before[n] != after[n]}
    for sample, (which, mpp, x, y) in before.items():
        side = round(SIZE * mpp / 0.5)
        touched = which == number and 240 - side < x < 480 and 240 - side < y < 480
        assert (sample in changed) == touched
        assert after[sample][:2] == before[sample][:2]
    assert len(changed) > 5
    assert drawer.rejected[DAMAGED] >= len(changed)
    assert not (tmp_path / "quarantined.tsv").exists()
    (noted,) = read_quarantine(tmp_path / DAMAGED_FILE)
    assert noted.slide_id == slide
    assert "of 32 positions probed can't be read" in noted.reason
    assert caplog.text.count("is damaged in parts") == 1


def test_a_slide_of_which_most_is_damaged_is_left_out(index: Path, tiles: Tiles, tmp_path: Path) -> None:
    damage(tmp_path / "jpeg.svs", range(tiles_of(tmp_path / "jpeg.svs")))
    record = tmp_path / "quarantined.tsv"
    with open_slides(index, tiles, record) as drawer:
        assert {place[0] for place in places(drawer, range(60)).values()} == {0}
    assert drawer.sampler.slides[0].slide_id == "deflate"
    (lost,) = read_quarantine(record)
    assert (lost.slide_id, lost.cohort) == ("jpeg", "demo")
    assert "(32 of 32 positions probed can't be read)" in lost.reason


@pytest.mark.parametrize(("share", "left_out"), [(0.0, True), (0.9, False), (1.0, False)])
def test_the_share_of_bad_positions_decides(
    index: Path, tiles: Tiles, tmp_path: Path, share: float, left_out: bool
) -> None:
    damage(tmp_path / "jpeg.svs", [5, 6, 9])
    with open_slides(index, replace(tiles, max_damaged=share), tmp_path / "quarantined.tsv") as drawer:
        places(drawer, range(80))
    assert (tmp_path / "quarantined.tsv").exists() == left_out


@given(st.sets(st.integers(0, 15), min_size=1), st.sets(st.integers(0, 15)), st.integers(0, 2**32), st.data())
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_tile_depends_on_seed_and_number_only_whatever_is_damaged(
    tmp_path_factory: pytest.TempPathFactory, first: set[int], second: set[int], seed: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("slides")
    index = make_slides(folder)
    for name, harmed in (("jpeg", first), ("deflate", second - first)):
        damage(folder / f"{name}.svs", harmed)
    tiles = Tiles(size=SIZE, mpps=(0.5,), hsv_filter=None, patience=0)
    numbers = list(range(24))
    expected = drawn(index, tiles, numbers)
    order = data.draw(st.permutations(numbers))
    cut = data.draw(st.integers(0, len(numbers)))
    assert drawn(index, tiles, order[:cut]) | drawn(index, tiles, order[cut:]) == expected


def harm(folder: Path) -> None:
    damage(folder / "jpeg.svs", [5])
    damage(folder / "deflate.svs", [0, 1, 2, 3, 4, 5, 6, 8, 9, 10])
    damage(folder / "deflate2.svs", range(16))


@pytest.fixture
def harmed(tmp_path: Path) -> Path:
    """Four slides: one with a damaged tile, one with many, one with all of level 0, one good."""
    image = tissue_image(960, 960, [(40, 40, 880, 880)], seed=1)
    names = {"jpeg": "jpeg", "deflate": "deflate", "deflate2": "deflate", "good": "jpeg"}
    paths = [write_slide(tmp_path / f"{name}.svs", image, 0.5, compression=kind) for name, kind in names.items()]
    index = make_index(tmp_path, paths)
    harm(tmp_path)
    return index


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_stream_of_damaged_slides_is_the_same_for_any_number_of_workers(
    harmed: Path, tiles: Tiles, workers: int
) -> None:
    def stream() -> TileStream:
        return TileStream({"demo": (harmed, 1.0)}, tiles, CROPS, 5, 4)

    alone = batches(stream(), 9)
    assert differences(alone, batches(stream(), 9, workers)) == []
    assert len({slide for batch in alone for slide in batch["slide"].tolist()}) >= 3


def test_a_resumed_stream_of_damaged_slides_goes_on_where_it_stopped(harmed: Path, tiles: Tiles) -> None:
    settings = ({"demo": (harmed, 1.0)}, tiles, CROPS, 5, 4)
    resumed = batches(TileStream(*settings, start_step=4), 4)
    assert differences(batches(TileStream(*settings), 8)[4:], resumed) == []


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_shared_reads_of_damaged_slides_are_the_same_for_any_number_of_workers(
    harmed: Path, tiles: Tiles, workers: int
) -> None:
    shared = replace(tiles, tiles_per_read=4)
    cohorts = {"demo": (harmed, 1.0)}

    def stream() -> TileStream:
        return TileStream(cohorts, shared, CROPS, 5, 3, source=SharedReads(cohorts, shared, 5, 3, lanes=6))

    alone = batches(stream(), 14)
    assert differences(alone, batches(stream(), 14, workers)) == []


def test_a_shared_read_over_a_damaged_tile_gives_the_tiles_beside_it(index: Path, tiles: Tiles, tmp_path: Path) -> None:
    damage(tmp_path / "jpeg.svs", [5])
    source = SharedReads({"demo": (index, 1.0)}, replace(tiles, mpps=(0.5,), tiles_per_read=6), 5, 4)
    drawn = source.tiles(range(24 * 4 * 6))
    near = [tile for tile in drawn if source.slides[tile.slide] == "jpeg" and 150 < tile.x < 520 and 150 < tile.y < 520]
    assert near
    assert not [tile for tile in near if 240 - SIZE < tile.x < 480 and 240 - SIZE < tile.y < 480]
    assert source.drawer.rejected[DAMAGED] > 0
    source.close()


def test_predrawn_tiles_of_damaged_slides_do_not_depend_on_the_process_that_draws_their_shard(
    harmed: Path, tiles: Tiles
) -> None:
    tile_set = TileSet.of({"demo": 1.0}, replace(tiles, predrawn=Predrawn(count=60)), 10)

    def of_shards(shards: Iterable[int]) -> dict[int, tuple[int, int, int]]:
        with open_drawer(tile_set, {"demo": harmed}) as drawer:
            samples = [sample for shard in shards for sample in tile_set.samples(shard)]
            return {sample: (tile.slide, tile.x, tile.y) for sample, tile in draw_samples(drawer, samples)}

    alone = of_shards(range(6))
    assert of_shards((0, 3, 5)) | of_shards((1, 4)) | of_shards((2,)) == alone
    assert len({place[0] for place in alone.values()}) >= 3


def test_what_is_harmed_while_it_is_read_is_found_and_left_out(
    index: Path, tiles: Tiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(tmp_path / "jpeg.svs", [5])
    with open_slides(index, tiles, tmp_path / "quarantined.tsv") as drawer, caplog.at_level(logging.WARNING):
        places(drawer, range(100))
        assert "is damaged in parts" in caplog.text
        damage(tmp_path / "jpeg.svs", range(16))
        drawer.reader.close()
        later = places(drawer, range(100, 260))
    assert {place[0] for number, place in later.items() if number > 230} == {0}
    assert [lost.slide_id for lost in read_quarantine(tmp_path / "quarantined.tsv")] == ["jpeg"]
