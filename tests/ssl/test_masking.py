import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.ssl.masking import _add_block, block_mask, draw_masks, step_masks

GRIDS = st.tuples(st.integers(2, 28), st.integers(2, 28))


@given(GRIDS, st.floats(0, 1), st.integers(0, 2**32))
def test_a_block_mask_hides_at_most_its_target_and_something(grid: tuple[int, int], share: float, seed: int) -> None:
    target = int(grid[0] * grid[1] * share)
    mask = block_mask(grid, target, np.random.default_rng(seed))
    assert mask.shape == grid
    assert mask.sum() <= target
    assert (mask.sum() > 0) == (target > 0)


@pytest.mark.parametrize(("side", "least"), [(7, 0.7), (16, 0.9)])
def test_masks_come_close_to_their_target(side: int, least: float) -> None:
    rng = np.random.default_rng(0)
    target = int(0.4 * side * side)
    counts = [int(block_mask((side, side), target, rng).sum()) for _ in range(200)]
    assert np.mean(counts) > least * target


def test_masks_are_blocks_not_noise() -> None:
    """Hidden patches have far more hidden neighbours than the same number strewn at random would."""
    rng = np.random.default_rng(0)

    def touching(mask: np.ndarray) -> float:
        return float((mask[1:] & mask[:-1]).sum() + (mask[:, 1:] & mask[:, :-1]).sum()) / max(1, mask.sum())

    masks = [block_mask((16, 16), 77, rng) for _ in range(50)]
    noise = [rng.permutation(mask.ravel()).reshape(mask.shape) for mask in masks]
    assert np.mean([touching(mask) for mask in masks]) > 2 * np.mean([touching(mask) for mask in noise])


@given(st.integers(1, 24), GRIDS, st.floats(0, 1), st.integers(0, 2**32))
def test_the_right_share_of_crops_is_masked(crops: int, grid: tuple[int, int], probability: float, seed: int) -> None:
    masks = draw_masks(crops, grid, probability, (0.1, 0.5), np.random.default_rng(seed))
    assert masks.shape == (crops, grid[0] * grid[1])
    assert (masks.sum(axis=1) > 0).sum() <= int(crops * probability)
    assert masks.sum(axis=1).max() <= 0.5 * masks.shape[1]
    if 0.1 * masks.shape[1] >= 1:
        assert (masks.sum(axis=1) > 0).sum() == int(crops * probability)


def test_every_patch_is_hidden_about_equally_often() -> None:
    rng = np.random.default_rng(0)
    rate = np.mean([draw_masks(8, (7, 7), 0.5, (0.1, 0.5), rng).mean(axis=0) for _ in range(400)], axis=0)
    assert rate.min() > 0.15 * rate.max()  # blocks lie in the middle more often, but corners are hidden too


def test_masks_of_a_step_are_a_function_of_seed_rank_and_step() -> None:
    def draw(seed: int, rank: int, step: int) -> np.ndarray:
        return step_masks(seed, rank, step, 8, (7, 7), 0.5, (0.1, 0.5))

    assert np.array_equal(draw(1, 0, 5), draw(1, 0, 5))
    assert not np.array_equal(draw(1, 0, 5), draw(1, 0, 6))
    assert not np.array_equal(draw(1, 0, 5), draw(1, 1, 5))
    assert not np.array_equal(draw(1, 0, 5), draw(2, 0, 5))


def dinov2s_mask(side: int, target: int, draw: random.Random) -> np.ndarray:
    """Its generator, written anew: blocks of at most half the grid, each narrower and lower than the grid."""
    mask, hidden, cap = np.zeros((side, side), dtype=bool), 0, side // 2 * side
    while hidden < target:
        room, found = min(target - hidden, cap), False
        for _ in range(10):
            area, aspect = draw.uniform(4, room), math.exp(draw.uniform(math.log(0.3), -math.log(0.3)))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height >= side or width >= side:
                continue
            top, left = draw.randint(0, side - height), draw.randint(0, side - width)
            block = mask[top : top + height, left : left + width]
            if 0 < (new := int((~block).sum())) <= room:
                block[:] = True
                hidden, found = hidden + new, True
                break
        if not found:
            break
    return mask


def lines(mask: np.ndarray) -> bool:
    """Whether a whole row or column is hidden."""
    return bool(mask.all(axis=0).any() or mask.all(axis=1).any())


@pytest.mark.parametrize(("side", "share"), [(16, 0.5), (16, 0.2), (16, 0.02), (7, 0.4)])
def test_masks_have_the_statistics_of_dinov2s(side: int, share: float) -> None:
    count, target = 1500, int(share * side * side)
    rng, draw = np.random.default_rng(0), random.Random(0)
    ours = [block_mask((side, side), target, rng) for _ in range(count)]
    theirs = [dinov2s_mask(side, target, draw) for _ in range(count)]
    for statistic in (np.mean, lines, lambda mask: float((mask[1:] & mask[:-1]).mean())):
        own, reference = ([float(statistic(mask)) for mask in masks] for masks in (ours, theirs))
        error = math.sqrt((np.var(own) + np.var(reference)) / count)
        assert abs(np.mean(own) - np.mean(reference)) < 4 * error + 1e-9


def test_a_block_is_at_most_half_the_grid_and_never_as_long() -> None:
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(500):
        mask = np.zeros((8, 8), dtype=bool)
        if _add_block(mask, 64, rng):
            drawn.append((mask.any(axis=1).sum(), mask.any(axis=0).sum()))
    assert max(max(each) for each in drawn) == 7
    whole = [block_mask((8, 8), 60, np.random.default_rng(seed)) for seed in range(200)]
    first = draw_masks(200, (8, 8), 1.0, (0.9, 1.0), np.random.default_rng(0))
    assert max(int(mask.sum()) for mask in whole) <= 60 < first.sum(axis=1).max()


def test_which_crops_are_masked_is_drawn() -> None:
    rng = np.random.default_rng(0)
    masked = np.mean([draw_masks(6, (7, 7), 0.5, (0.1, 0.5), rng).any(axis=1) for _ in range(400)], axis=0)
    assert masked.min() > 0.4 and masked.max() < 0.6


def test_a_batch_has_light_and_heavy_masks() -> None:
    """Four masked crops share 0.1 to 0.5 among them in steps of 0.1, so the lightest is never above 0.2."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        counts = draw_masks(8, (16, 16), 0.5, (0.1, 0.5), rng).sum(axis=1)
        hidden = np.sort(counts[counts > 0]) / 256
        assert hidden[0] <= 0.2 and hidden[-1] <= 0.5


def test_no_block_is_asked_for_more_than_half_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def spy(mask: np.ndarray, room: int, rng: np.random.Generator) -> bool:
        asked.append(room)
        return _add_block(mask, room, rng)

    monkeypatch.setattr("midnight.ssl.masking._add_block", spy)
    block_mask((7, 8), 50, np.random.default_rng(0))
    assert asked[0] == 7 // 2 * 8 and max(asked) == asked[0]
