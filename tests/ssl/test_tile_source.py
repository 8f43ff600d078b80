from dataclasses import replace
from pathlib import Path

import pytest

from midnight.config import Predrawn, Recipe, load_recipe
from midnight.errors import MidnightError
from midnight.ssl.loader import tile_source


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("demo")


def test_by_default_tiles_come_from_the_slides(recipe: Recipe) -> None:
    assert tile_source(recipe, {"demo": (Path("index.parquet"), 1.0)}, None) is None


def test_a_set_drawn_beforehand_needs_its_index(recipe: Recipe, tmp_path: Path) -> None:
    drawn = replace(recipe, tiles=replace(recipe.tiles, predrawn=Predrawn(count=10)))
    cohorts = {"demo": (Path("index.parquet"), 1.0)}
    with pytest.raises(MidnightError, match=r"recipe demo: it trains on tiles drawn beforehand .* no index"):
        tile_source(drawn, cohorts, None)
    with pytest.raises(MidnightError, match=r"index\.arrow: not a readable index of tiles"):
        tile_source(drawn, cohorts, tmp_path / "index.arrow")
