import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.ssl.masking import block_mask, draw_masks, step_masks

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
