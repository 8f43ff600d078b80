from pathlib import Path

import cv2
import numpy as np
import pytest

from midnight.config import HsvFilter, Tiles
from midnight.errors import MidnightError
from midnight.tiles.draw.examples import draw_examples, draw_sheet, write_sheet
from midnight.tiles.draw.hsv_filter import fraction
from tests.tissue.small_slides import write_slide


def test_examples_say_why_they_were_accepted_or_rejected(index: Path, tiles: Tiles) -> None:
    examples = draw_examples(index, tiles, 16, seed=1)
    reasons = [example.reason for example in examples]
    assert reasons.count("accepted") == 8
    assert reasons.count("foreground") == 4
    assert reasons.count("hsv") >= 1
    assert reasons == sorted(reasons, key=["accepted", "hsv", "foreground"].index)
    for example in examples:
        assert example.tile.shape == (64, 64, 3)
        assert example.fraction == fraction(example.tile, HsvFilter())
        assert example.accepted == (example.reason == "accepted")
        assert (example.foreground < 0.4) == (example.reason == "foreground")
        assert (example.foreground >= 0.4 and example.fraction < 0.6) == (example.reason == "hsv")
        assert example.mpp in tiles.mpps


def test_the_same_seed_gives_the_same_examples(index: Path, tiles: Tiles) -> None:
    first, again, other = (draw_examples(index, tiles, 6, seed) for seed in (1, 1, 2))
    places = [[(example.slide_id, example.x, example.y) for example in drawn] for drawn in (first, again, other)]
    assert places[0] == places[1] != places[2]


def test_without_the_filter_nothing_fails_it(index: Path, tiles: Tiles) -> None:
    examples = draw_examples(index, Tiles(size=64, mpps=(0.5,), hsv_filter=None), 8, seed=0)
    assert {example.reason for example in examples} == {"accepted", "foreground"}


def test_a_sheet_of_a_slide_and_of_an_index(
    tmp_path: Path, index: Path, tiles: Tiles, images: dict[str, np.ndarray]
) -> None:
    slide = write_slide(tmp_path / "slide.svs", images["large"], 0.5)
    for source in (slide, index):
        shown = write_sheet(source, tiles, 10, 0, tmp_path / "sheet.png")
        sheet = cv2.imread(str(tmp_path / "sheet.png"))
        assert sheet.shape == draw_sheet(shown).shape
        assert sheet.shape[1] == 6 * (256 + 12)


def test_a_slide_that_cannot_be_used_says_why(tmp_path: Path, tiles: Tiles, images: dict[str, np.ndarray]) -> None:
    path = write_slide(tmp_path / "blind.svs", images["large"], None)
    with pytest.raises(MidnightError, match=r"blind\.svs: no resolution"):
        write_sheet(path, tiles, 4, 0, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
