"""From the configuration to how often things are drawn."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from scipy import stats

from midnight.config import Recipe, build
from midnight.tiles.draw.source import OnlineSource, TileSource
from midnight.tissue.index import training_slides
from tests.tissue.small_slides import make_index, tissue_image, write_slide

DRAWS = 900


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One cohort of a large and a small piece of tissue, one of a single slide."""
    out = {}
    for name, boxes in {"a": [(40, 40, 700, 700), (300, 300, 300, 300)], "b": [(100, 50, 500, 600)]}.items():
        folder = tmp_path_factory.mktemp(name)
        images = [tissue_image(800, 800, [box], seed=number) for number, box in enumerate(boxes)]
        slides = [write_slide(folder / f"{name}{n}.svs", image, 0.5, downsamples=()) for n, image in enumerate(images)]
        out[name] = make_index(folder, slides)
    return out


def draw(cohorts: dict[str, Path], shares: dict[str, float], **tiles: Any) -> tuple[OnlineSource, list[Any]]:
    values = {"size": 16, "mpps": [0.5, 1.0], "hsv_filter": None, **tiles}
    recipe = build(Recipe, {"tiles": values, "seed": 1}, "test")
    source = OnlineSource({name: (cohorts[name], share) for name, share in shares.items()}, recipe.tiles, recipe.seed)
    drawn = source.tiles(range(DRAWS))
    source.close()
    return source, drawn


def agree(counts: Counter[Any], expected: dict[Any, float]) -> bool:
    assert set(counts) == set(expected)
    if len(expected) == 1:
        return True
    observed = [counts[name] for name in expected]
    return bool(stats.chisquare(observed, np.array(list(expected.values())) * DRAWS).pvalue > 1e-3)


def test_cohorts_are_mixed_by_share_and_their_slides_drawn_equally(cohorts: dict[str, Path]) -> None:
    source, drawn = draw(cohorts, {"a": 1.0, "b": 3.0})
    assert list(source.slides) == ["a0", "a1", "b0"]
    assert agree(Counter(source.cohorts[tile.cohort] for tile in drawn), {"a": 0.25, "b": 0.75})
    assert agree(Counter(source.slides[tile.slide] for tile in drawn), {"a0": 0.125, "a1": 0.125, "b0": 0.75})
    assert agree(Counter(tile.mpp for tile in drawn), {0.5: 0.5, 1.0: 0.5})


def test_slides_are_drawn_by_area_where_the_recipe_says_so(cohorts: dict[str, Path]) -> None:
    areas = {record.slide_id: record.tissue_mm2 for record in training_slides(cohorts["a"])}
    assert areas["a0"] > 4 * areas["a1"]
    source, drawn = draw(cohorts, {"a": 1.0}, slide_weights="area")
    shares = {name: area / sum(areas.values()) for name, area in areas.items()}
    assert agree(Counter(source.slides[tile.slide] for tile in drawn), shares)


@pytest.mark.parametrize("weights", [[3.0, 1.0], [0.0, 1.0]])
def test_magnifications_have_their_weights(cohorts: dict[str, Path], weights: list[float]) -> None:
    _, drawn = draw(cohorts, {"a": 1.0}, mpp_weights=weights)
    expected = {mpp: weight / sum(weights) for mpp, weight in zip((0.5, 1.0), weights, strict=True) if weight}
    assert agree(Counter(tile.mpp for tile in drawn), expected)


def test_a_cohort_without_a_share_is_not_read(cohorts: dict[str, Path], tmp_path: Path) -> None:
    source, drawn = draw(cohorts | {"none": tmp_path / "none.parquet"}, {"a": 1.0, "none": 0.0})
    assert list(source.cohorts) == ["a"]
    assert len(drawn) == DRAWS


def test_closing_frees_the_slides_and_drawing_opens_them_again(cohorts: dict[str, Path]) -> None:
    source: TileSource
    source, drawn = draw(cohorts, {"a": 1.0})
    assert not [file for file in psutil.Process().open_files() if file.path.endswith(".svs")]
    assert np.array_equal(source.tiles([5])[0].pixels, drawn[5].pixels)
    source.close()
