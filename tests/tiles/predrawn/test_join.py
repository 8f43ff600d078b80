from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.config import Predrawn
from midnight.errors import MidnightError
from midnight.tiles.predrawn import join
from midnight.tiles.predrawn.index import Index, read_index
from midnight.tiles.predrawn.join import join_parts, repeated
from midnight.tiles.predrawn.sampling import draw_samples, open_drawer
from midnight.tiles.predrawn.tars import tar_path
from midnight.tiles.predrawn.tileset import TileSet
from tests.tiles.predrawn.conftest import COUNT, draw_all

Indexes = dict[str, Path]
PLACE = ("slide", "mpp", "x", "y")


def places(index: Index) -> list[tuple[float, ...]]:
    return list(zip(*(index.columns[name].tolist() for name in PLACE), strict=True))


@given(st.lists(st.integers(0, 12), max_size=60))
def test_all_but_the_first_are_repeated(values: list[int]) -> None:
    expected = [value in values[:place] for place, value in enumerate(values)]
    assert repeated(np.array(values, np.uint64)).tolist() == expected


def test_the_index_names_every_tile_and_what_its_numbers_mean(drawn: Path, tile_set: TileSet) -> None:
    index = read_index(drawn / "index.arrow")
    assert len(index) == COUNT
    assert index.slides == ["large", "small"]
    assert index.cohorts == ["demo"]
    assert index.settings["tiles"]["predrawn"]["count"] == COUNT
    assert len(set(places(index))) == COUNT
    assert set(index.columns["shard"]) <= set(range(tile_set.shards + 1))
    assert not index.columns["x"].flags.owndata, "mapped, not read"


def test_what_was_drawn_twice_is_replaced(crowded: TileSet, narrow: Indexes, tmp_path: Path) -> None:
    """The set is the first `count` different draws, with any number of shards and jobs."""
    index = read_index(draw_all(crowded, narrow, tmp_path / "one"))
    assert len(set(places(index))) == len(index) == 60
    replaced = int((index.columns["shard"] == crowded.shards).sum())
    assert replaced > 5
    assert tar_path(tmp_path / "one", crowded.shards).exists()
    expected: dict[tuple[float, ...], int] = {}
    with open_drawer(crowded, narrow) as drawer:
        for sample, tile in draw_samples(drawer, range(index.columns["sample"].max() + 1)):
            expected.setdefault((tile.slide, tile.mpp, tile.x, tile.y), sample)
    assert dict(zip(places(index), index.columns["sample"].tolist(), strict=True)) == expected
    other = read_index(draw_all(replace(crowded, per_shard=23), narrow, tmp_path / "two", shards_per_job=1))
    assert places(other) == places(index)


def test_marginals_are_those_of_the_sampler(tile_set: TileSet, indexes: Indexes, tmp_path: Path) -> None:
    """Against other draws: slides, mpps and places within four standard errors."""
    many = replace(tile_set, tiles=replace(tile_set.tiles, predrawn=Predrawn(count=240, seed=2)), per_shard=240)
    index = read_index(draw_all(many, indexes, tmp_path))
    with open_drawer(many, indexes) as drawer:
        online = [tile for _, tile in draw_samples(drawer, range(1000, 1240))]
    for name in PLACE:
        mine, theirs = index.columns[name], np.array([getattr(tile, name) for tile in online])
        assert mine.mean() == pytest.approx(theirs.mean(), abs=4 * theirs.std() * np.sqrt(2 / 240))
    assert {(row.slide, row.mpp) for row in online} == set(
        zip(index.columns["slide"], index.columns["mpp"], strict=True)
    )


def test_more_tiles_than_places_are_one_clear_error(
    crowded: TileSet, narrow: Indexes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join, "PATIENCE", 50)
    tiles = replace(crowded.tiles, predrawn=Predrawn(count=300))
    with pytest.raises(MidnightError, match=r"the slides hold about \d+ different tiles, not 300; lower"):
        draw_all(replace(crowded, tiles=tiles, per_shard=300), narrow, tmp_path)
    assert not (tmp_path / "index.arrow").exists()


def test_a_missing_part_is_named(drawn: Path, tile_set: TileSet, indexes: Indexes, tmp_path: Path) -> None:
    parts = sorted((drawn / "parts").iterdir())
    with pytest.raises(MidnightError, match="hold 26 tiles, not the 50"):
        join_parts(tile_set, indexes, tmp_path, parts[1:], tmp_path / "index.arrow")
    with pytest.raises(MidnightError, match=r"gone\.parquet: not a readable table"):
        join_parts(tile_set, indexes, tmp_path, [tmp_path / "gone.parquet"], tmp_path / "index.arrow")


def test_a_file_that_is_no_index_is_refused(drawn: Path) -> None:
    with pytest.raises(MidnightError, match=r"plan\.json: not a readable index of tiles"):
        read_index(drawn / "plan.json")
