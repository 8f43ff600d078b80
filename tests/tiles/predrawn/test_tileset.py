from dataclasses import replace
from pathlib import Path

import pytest

from midnight.config import HsvFilter, Predrawn, Tiles, load_config, load_recipe
from midnight.errors import MidnightError
from midnight.tiles.predrawn.tileset import TileSet, find_set


def make(**change: object) -> TileSet:
    return TileSet.of({"a": 1.0, "b": 3.0}, replace(Tiles(predrawn=Predrawn(count=25_000_000)), **change), 10_000)


def test_shards_and_jobs_cut_the_samples_without_gap() -> None:
    tile_set = TileSet.of({"a": 1.0}, Tiles(predrawn=Predrawn(count=1234)), 100)
    samples = [sample for shard in range(tile_set.shards) for sample in tile_set.samples(shard)]
    assert samples == list(range(1234))
    shards = [shard for job in range(tile_set.jobs(5)) for shard in tile_set.job_shards(job, 5)]
    assert shards == list(range(13))


def test_the_papers_set_is_100_jobs() -> None:
    tile_set = TileSet.of({"tcga-ffpe": 1.0}, load_recipe("tcga-100M").tiles, 10_000)
    assert tile_set.name.startswith("tcga-ffpe-100M-")
    assert (tile_set.shards, tile_set.jobs(100)) == (10_000, 100)
    assert load_recipe("openmidnight").tiles.predrawn == Predrawn(count=29_000_000)


def test_augmentation_and_speed_share_a_set() -> None:
    assert make(hed_sigma=0.3, max_open_slides=99, tiles_per_read=8, read_side=700) == make()
    assert TileSet.of({"a": 2.0, "b": 6.0}, make().tiles, 10_000).name == make().name


@pytest.mark.parametrize(
    "change",
    [
        {"size": 512},
        {"mpps": (0.5,)},
        {"hsv_filter": None},
        {"hsv_filter": HsvFilter(min_fraction=0.5)},
        {"slide_weights": "area"},
        {"predrawn": Predrawn(count=25_000_000, quality=80)},
        {"predrawn": Predrawn(count=25_000_000, seed=1)},
    ],
)
def test_what_the_tiles_depend_on_makes_another_set(change: dict[str, object]) -> None:
    assert make(**change).name != make().name


def test_other_slides_make_another_key(tmp_path: Path) -> None:
    index = tmp_path / "index.parquet"
    index.write_bytes(b"one")
    first = make().key({"a": index})
    index.write_bytes(b"two")
    assert make().key({"a": index}) != first
    with pytest.raises(MidnightError, match="gone: can't be read: No such file"):
        make().key({"a": tmp_path / "gone"})


def test_a_recipe_that_draws_online_has_no_set() -> None:
    with pytest.raises(MidnightError, match=r"tiles\.predrawn is null"):
        _ = TileSet.of({"a": 1.0}, Tiles(), 100).name


def test_a_run_or_a_recipe_names_its_set() -> None:
    runs = {"mine": {"recipe": "tcga-100M", "cohorts": {"b": 1}, "override": {"tiles": {"predrawn": {"count": 7}}}}}
    config = load_config({"cohorts": {"a": {"source": "gdc"}, "b": {"source": "gdc"}}, "runs": runs}, "here")
    assert find_set(config, "mine").name == find_set(config, "tcga-100M").name
    assert find_set(config, "mine").predrawn.count == 7
    assert find_set(config, "openmidnight").name.startswith("a+b-29M-")
    with pytest.raises(MidnightError, match=r"tiles\.predrawn is null"):
        find_set(config, "midnight-12k")
    with pytest.raises(MidnightError, match="unknown recipe 'nope'"):
        find_set(config, "nope")
