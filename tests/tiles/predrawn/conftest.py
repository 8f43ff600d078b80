from dataclasses import replace
from pathlib import Path

import pytest

from midnight.config import Draw, Predrawn, Tiles
from midnight.tiles.predrawn.draw import draw_job
from midnight.tiles.predrawn.join import join_parts
from midnight.tiles.predrawn.plan import write_plan
from midnight.tiles.predrawn.tileset import TileSet
from tests.tissue.small_slides import make_index, tissue_image, write_slide

COUNT = 50
PER_SHARD = 8


@pytest.fixture(scope="session")
def lossless() -> Tiles:
    predrawn = Predrawn(count=COUNT, format="png", seed=5)
    return Tiles(size=64, mpps=(0.5, 1.0, 2.0), max_open_slides=2, predrawn=predrawn)


@pytest.fixture(scope="session")
def indexes(index: Path) -> dict[str, Path]:
    return {"demo": index}


@pytest.fixture(scope="session")
def tile_set(lossless: Tiles) -> TileSet:
    return TileSet.of({"demo": 1.0}, lossless, PER_SHARD)


def draw_all(tile_set: TileSet, indexes: dict[str, Path], folder: Path, shards_per_job: int = 3) -> Path:
    """The three rules, one after the other; the set's index."""
    write_plan(tile_set, indexes, Draw(shards_per_job=shards_per_job), folder / "plan.json")
    parts = []
    for job in range(tile_set.jobs(shards_per_job)):
        parts.append(folder / "parts" / f"{job:04d}.parquet")
        shards = tile_set.job_shards(job, shards_per_job)
        draw_job(tile_set, indexes, folder, shards, 1, folder / "plan.json", parts[-1])
    join_parts(tile_set, indexes, folder, parts, folder / "index.arrow")
    return folder / "index.arrow"


@pytest.fixture(scope="session")
def drawn(tile_set: TileSet, indexes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole set; its folder. Not to be written to."""
    return draw_all(tile_set, indexes, tmp_path_factory.mktemp("set")).parent


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The index of one small slide, on which the tiles of `crowded` have 12 × 17 places."""
    folder = tmp_path_factory.mktemp("narrow")
    image = tissue_image(300, 320, [(0, 0, 300, 320)], seed=4)
    return {"demo": make_index(folder, [write_slide(folder / "narrow.svs", image, 0.5)])}


@pytest.fixture(scope="session")
def crowded(tile_set: TileSet) -> TileSet:
    """So many tiles of `narrow` that many are drawn twice."""
    tiles = replace(tile_set.tiles, mpps=(2.0,), predrawn=Predrawn(count=60, seed=1))
    return replace(tile_set, tiles=tiles, per_shard=20)
