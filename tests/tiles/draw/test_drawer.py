import contextlib
import logging
import os
import resource
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from midnight.config import HsvFilter, Tiles
from midnight.errors import MidnightError
from midnight.tiles.draw.drawer import TileDrawer
from midnight.tiles.draw.drawn import DrawnTile
from midnight.tiles.draw.hsv_filter import passes
from midnight.tiles.draw.lost_slides import Quarantine, read_quarantine
from midnight.tiles.draw.sampler import TileSampler
from midnight.tiles.read.reader import SlideReader
from midnight.tissue.index import training_slides
from tests.patience import Time
from tests.tiles.read.damaged import damage, tiles_of
from tests.tissue.small_slides import make_index, tissue_image, write_slide


def make_drawer(index: Path, tiles: Tiles, seed: int = 0, quarantine: Path | None = None) -> TileDrawer:
    sampler = TileSampler({"demo": (training_slides(index), 1.0)}, tiles)
    return TileDrawer(sampler, SlideReader(2, sampler.patience), seed, Quarantine(quarantine))


@pytest.fixture
def drawer(index: Path, tiles: Tiles) -> Iterator[TileDrawer]:
    made = make_drawer(index, tiles)
    yield made
    made.close()


@pytest.fixture
def copied(index: Path, tmp_path: Path) -> Path:
    """The same slides, to be damaged."""
    paths = [shutil.copy(record.path, tmp_path) for record in training_slides(index)]
    return make_index(tmp_path, [Path(path) for path in paths])


def place(tile: DrawnTile) -> tuple[int, float, int, int]:
    return tile.slide, tile.mpp, tile.x, tile.y


def test_every_tile_passes_both_filters_and_shows_its_place(drawer: TileDrawer, images: dict[str, np.ndarray]) -> None:
    seen = set()
    for number in range(60):
        tile = drawer.draw(number)
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


def test_slides_keep_their_share_under_the_filter(index: Path, tiles: Tiles) -> None:
    drawer = make_drawer(index, tiles, seed=1)
    slides = [drawer.draw(number).slide for number in range(300)]
    assert np.mean(slides) == pytest.approx(0.5, abs=0.12)


def test_a_tile_depends_on_seed_and_number_only(index: Path, tiles: Tiles) -> None:
    forwards, backwards = make_drawer(index, tiles), make_drawer(index, tiles)
    first = [forwards.draw(number) for number in range(12)]
    second = [backwards.draw(number) for number in reversed(range(12))][::-1]
    assert [place(tile) for tile in first] == [place(tile) for tile in second]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(first, second, strict=True))
    assert place(make_drawer(index, tiles, seed=9).draw(0)) != place(first[0])


def test_a_slide_that_vanishes_is_left_out_logged_once_and_recorded(
    copied: Path, tiles: Tiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = [make_drawer(copied, tiles).draw(number) for number in range(30)]
    assert {tile.slide for tile in before} == {0, 1}
    record = tmp_path / "quarantined.tsv"
    gone = training_slides(copied)[0]
    Path(gone.path).unlink()
    drawers = [make_drawer(copied, tiles, quarantine=record) for _ in range(2)]
    with caplog.at_level(logging.WARNING):
        after = [[drawer.draw(number) for number in range(30)] for drawer in drawers]
    warnings = [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert warnings == [f"slide {gone.slide_id} is left out: no such file"]
    assert record.read_text() == f"{gone.slide_id}\tdemo\t{gone.path}\tno such file\n"
    assert [lost.slide_id for lost in read_quarantine(record)] == [gone.slide_id]
    assert [place(tile) for tile in after[0]] == [place(tile) for tile in after[1]]
    assert {tile.slide for tile in after[0]} == {1}
    for old, new in zip(before, after[0], strict=True):
        assert place(old) == place(new) or old.slide == 0


def test_a_slide_that_is_cut_off_is_left_out(copied: Path, tiles: Tiles, tmp_path: Path) -> None:
    record = tmp_path / "quarantined.tsv"
    drawer = make_drawer(copied, tiles, quarantine=record)
    for number in range(4):
        drawer.draw(number)
    drawer.close()
    damaged = Path(training_slides(copied)[1].path)
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 3])
    assert {drawer.draw(number).slide for number in range(40)} == {0}
    (lost,) = read_quarantine(record)
    assert lost.slide_id == training_slides(copied)[1].slide_id
    assert lost.reason


def test_what_a_decoder_trips_over_is_a_reason_too(
    drawer: TileDrawer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read = drawer.reader.read

    def trip(record, window, column, row):
        if record.slide_id == drawer.sampler.slides[0].slide_id:
            raise IndexError("offset 7")
        return read(record, window, column, row)

    monkeypatch.setattr(drawer.reader, "read", trip)
    assert {drawer.draw(number).slide for number in range(20)} == {1}
    assert "is left out: IndexError: offset 7" in caplog.text


def test_when_nothing_can_be_drawn_it_says_why(copied: Path, tiles: Tiles) -> None:
    strict = replace(tiles, mpps=(2.0,), hsv_filter=HsvFilter(hue=(10, 12)))
    with pytest.raises(MidnightError, match=r"lower tiles\.foreground or tiles\.hsv_filter\.min_fraction"):
        make_drawer(copied, strict).draw(0)
    for record in training_slides(copied):
        damage(Path(record.path), range(tiles_of(Path(record.path))))
    with pytest.raises(MidnightError, match=r"no tile was accepted on 64 slides.*2 slides can't be read"):
        make_drawer(copied, replace(tiles, mpps=(0.5,))).draw(0)


def test_a_folder_that_is_away_for_a_while_costs_no_slide_and_changes_no_tile(
    copied: Path, tiles: Tiles, tmp_path: Path
) -> None:
    healthy = [place(make_drawer(copied, tiles).draw(number)) for number in range(20)]
    folder, slides = tmp_path / "slides", training_slides(copied)
    moved = [replace(record, path=str(folder / Path(record.path).name)) for record in slides]
    away = folder.with_name("away")
    time = Time(lambda now: away.rename(folder) if now > 100 and away.exists() else None)
    away.mkdir()
    for record in slides:
        Path(record.path).rename(away / Path(record.path).name)
    sampler = TileSampler({"demo": (moved, 1.0)}, tiles)
    record = tmp_path / "quarantined.tsv"
    reader = SlideReader(2, time.patience(600, [slide.path for slide in moved]))
    drawer = TileDrawer(sampler, reader, 0, Quarantine(record))
    assert [place(drawer.draw(number)) for number in range(20)] == healthy
    assert 100 < time.now < 140
    assert not record.exists()


def test_folders_that_stay_away_end_the_run_instead_of_their_slides(copied: Path, tiles: Tiles) -> None:
    for record in training_slides(copied):
        Path(record.path).unlink()
    with pytest.raises(
        MidnightError, match=r"after 0 s of waiting, as for 2 of 2 files that were tried: bring the fol"
    ):
        make_drawer(copied, replace(tiles, patience=0.0)).draw(0)


@contextlib.contextmanager
def few_files(more: int) -> Iterator[None]:
    """This process may open so many more files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    highest = max(taken[0], *(int(file.name) for file in Path("/proc/self/fd").iterdir()))
    while taken[-1] < highest:
        taken.append(os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1 + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for number in taken:
            os.close(number)


@pytest.mark.parametrize("compression", ["deflate", "jpeg"])
def test_out_of_file_handles_no_slide_is_lost_and_what_is_lost_is_recorded(
    tiles: Tiles, tmp_path: Path, compression: str, caplog: pytest.LogCaptureFixture
) -> None:
    image = tissue_image(400, 400, [(20, 20, 360, 360)])
    paths = [write_slide(tmp_path / f"s{number:02}.svs", image, 0.5, None, (), compression) for number in range(20)]
    many = replace(tiles, mpps=(0.5,), max_open_slides=128)
    index, record = make_index(tmp_path, paths), tmp_path / "quarantined.tsv"
    healthy = make_drawer(index, many)
    expected = [place(healthy.draw(number)) for number in range(100)]
    healthy.close()
    sampler = TileSampler({"demo": (training_slides(index), 1.0)}, many)
    drawer = TileDrawer(sampler, SlideReader(128, sampler.patience), 0, Quarantine(record))
    with few_files(10):
        drawn = [place(drawer.draw(number)) for number in range(100)]
        opened = len(drawer.reader.open_slides)
        paths[3].unlink()
        drawer.reader.close()
        later = [drawer.draw(number) for number in range(100, 200)]
        recorded = [lost.slide_id for lost in read_quarantine(record)]
    drawer.close()
    assert drawn == expected
    assert len({tile[0] for tile in drawn}) == 20
    if compression == "jpeg":  # read straight from the file; OpenSlide holds no handles of such slides
        assert 1 <= opened < 10
        assert "out of file handles" in caplog.text
    assert recorded == ["s03"]
    assert len({tile.slide for tile in later}) == 19
