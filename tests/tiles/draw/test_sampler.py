import math
from collections import Counter
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from scipy import stats

from midnight.config import Tiles
from midnight.errors import MidnightError
from midnight.tiles.draw import positions, sampler
from midnight.tiles.draw.foreground import mask_view
from midnight.tiles.draw.positions import position_share
from midnight.tiles.draw.sampler import TileSampler, windows_of
from midnight.tissue.index import TissueRecord
from tests.tissue.small_slides import make_record

TILES = Tiles(size=64, mpps=(0.5, 1.0, 2.0))
FULL = np.ones((80, 100), bool)


def quarter() -> np.ndarray:
    mask = np.zeros((20, 26), bool)
    mask[4:13, 5:14] = True
    return mask


def test_cohorts_slides_and_mpps_have_their_shares() -> None:
    slides = {name: [make_record(FULL, f"{name}{i}") for i in range(count)] for name, count in (("a", 2), ("b", 5))}
    sampler = TileSampler({"a": (slides["a"], 3.0), "b": (slides["b"], 1.0)}, replace(TILES, mpp_weights=(2, 1, 1)))
    rng = np.random.default_rng(0)
    choices = [sampler.draw_slide(rng) for _ in range(8000)]
    by_slide = Counter(choice.slide for choice in choices)
    expected = [0.75 / 2] * 2 + [0.25 / 5] * 5
    assert stats.chisquare([by_slide[i] for i in range(7)], 8000 * np.array(expected)).pvalue > 1e-3
    by_mpp = Counter(choice.window.mpp for choice in choices)
    assert stats.chisquare([by_mpp[m] for m in (0.5, 1.0, 2.0)], [4000, 2000, 2000]).pvalue > 1e-3
    assert {choice.cohort for choice in choices if choice.slide < 2} == {0}
    assert sampler.cohorts == ["a", "b"]


def test_rounding_leaves_nothing_above_the_last_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times .1 adds up to less than 1; `sum` gives 1 from Python 3.12 on."""
    monkeypatch.setattr(sampler, "sum", math.fsum, raising=False)
    drawn = TileSampler({name: ([make_record(FULL, name)], 0.1) for name in "abcdefghij"}, TILES)
    largest = Mock(random=lambda count: np.full(count, math.nextafter(1, 0)))
    assert drawn.draw_slide(largest).cohort == 9


def test_slides_can_be_drawn_by_area() -> None:
    slides = [make_record(FULL, "full"), make_record(np.kron([[1, 0]], np.ones((80, 50))).astype(bool), "half")]
    sampler = TileSampler({"a": (slides, 1.0)}, replace(TILES, slide_weights="area"))
    rng = np.random.default_rng(0)
    drawn = Counter(sampler.draw_slide(rng).slide for _ in range(6000))
    assert stats.chisquare([drawn[0], drawn[1]], [4000, 2000]).pvalue > 1e-3


def test_a_slide_gives_the_mpps_that_it_has() -> None:
    fine, coarse = make_record(FULL, mpp=0.25), make_record(FULL, mpp=0.499)
    wanted = Tiles(size=64, mpps=(0.125, 0.25, 0.5, 1.0))
    assert [window.mpp for window, _ in windows_of(fine, wanted)] == [0.25, 0.5, 1.0]
    assert [window.mpp for window, _ in windows_of(coarse, wanted)] == [0.5, 1.0]
    assert [window.mpp for window, _ in windows_of(coarse, replace(wanted, upsample=True))] == [0.125, 0.25, 0.5, 1.0]
    assert [window.mpp for window, _ in windows_of(make_record(FULL[:10]), wanted)] == [0.5, 1.0]
    assert [window.mpp for window, _ in windows_of(make_record(FULL[:5]), wanted)] == [0.5]


@pytest.mark.parametrize("rounds", [positions.ROUNDS, ()])
def test_positions_are_uniform_over_all_valid_ones(rounds: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "ROUNDS", rounds)
    record = make_record(quarter(), scale=8)
    sampler = TileSampler({"a": ([record], 1.0)}, replace(TILES, size=16, mpps=(2.0,)))
    rng = np.random.default_rng(1)
    choice = sampler.draw_slide(rng)
    view, window = mask_view(record), choice.window
    truth = np.array([[position_share(view, window, c, r) for c in range(window.columns)] for r in range(window.rows)])
    truth = truth >= 0.4
    counts = np.zeros(truth.shape, int)
    for _ in range(15 * int(truth.sum())):
        column, row = sampler.draw_position(rng, choice) or (-1, -1)
        counts[row, column] += 1
    assert 0.05 < truth.mean() < 0.6
    assert not counts[~truth].any()
    assert stats.chisquare(counts[truth]).pvalue > 1e-3


def test_a_slide_without_a_valid_position_says_so() -> None:
    mask = np.zeros((80, 100), bool)
    mask[3, 4] = True
    sampler = TileSampler({"a": ([make_record(mask)], 1.0)}, TILES)
    rng = np.random.default_rng(0)
    assert sampler.draw_position(rng, sampler.draw_slide(rng)) is None


def test_the_same_generator_draws_the_same(tiles: Tiles) -> None:
    drawn = []
    for _ in range(2):
        sampler = TileSampler(
            {"a": ([make_record(quarter(), f"s{i}") for i in range(3)], 1.0)}, replace(TILES, size=32)
        )
        rng = np.random.default_rng(4)
        choices = [sampler.draw_slide(rng) for _ in range(20)]
        drawn.append([(choice, sampler.draw_position(rng, choice)) for choice in choices])
    assert drawn[0] == drawn[1]


def test_quarantined_and_too_small_slides_are_left_out() -> None:
    bad = TissueRecord("bad", "", status="quarantined", reason="x")
    sampler = TileSampler({"a": ([bad, make_record(FULL[:3]), make_record(FULL, "good")], 1.0)}, TILES)
    assert [record.slide_id for record in sampler.slides] == ["good"]


def test_what_cannot_be_drawn_gets_one_line() -> None:
    with pytest.raises(MidnightError, match=r"cohort b: none of 1 slides can give tiles of 64 px at 0\.5, 1, 2 µm/px"):
        TileSampler({"a": ([make_record(FULL)], 1.0), "b": ([make_record(FULL[:3])], 1.0)}, TILES)
    with pytest.raises(MidnightError, match=r"tiles\.mpp_weights: needs 3 weights"):
        TileSampler({"a": ([make_record(FULL)], 1.0)}, replace(TILES, mpp_weights=(1.0,)))
    with pytest.raises(MidnightError, match="cohorts: all weights are 0"):
        TileSampler({"a": ([make_record(FULL)], 0.0)}, TILES)
