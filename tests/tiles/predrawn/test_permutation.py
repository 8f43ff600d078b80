import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.tiles.predrawn.permutation import permute


@given(st.integers(1, 3000), st.integers(0, 2**63), st.integers(0, 1000))
def test_every_number_comes_once(count: int, seed: int, epoch: int) -> None:
    found = permute(np.arange(count), count, seed, epoch)
    assert found.dtype == np.int64
    assert np.array_equal(np.sort(found), np.arange(count))


@given(st.integers(1, 3000), st.integers(0, 100))
def test_a_place_does_not_depend_on_the_others_asked_for(count: int, seed: int) -> None:
    whole = permute(np.arange(count), count, seed, 3)
    assert [permute(np.array([place]), count, seed, 3)[0] for place in range(min(count, 20))] == whole[:20].tolist()


def test_large_sets_need_no_memory_of_their_size() -> None:
    count = 2**61 + 12345
    places = np.random.default_rng(0).integers(0, count, 100_000)
    found = permute(places, count, 1, 0)
    assert found.min() >= 0
    assert found.max() < count
    assert len(np.unique(found)) == len(np.unique(places))


@pytest.mark.parametrize("change", [(8, 0), (7, 1)])
def test_seed_and_epoch_change_the_order(change: tuple[int, int]) -> None:
    first, second = permute(np.arange(1000), 1000, 7, 0), permute(np.arange(1000), 1000, *change)
    assert np.mean(first == second) < 0.01


def test_the_order_is_like_a_random_one() -> None:
    """Over many seeds each place gets each number equally often, and neighbours are not correlated."""
    count, seeds = 12, 6000
    orders = np.array([permute(np.arange(count), count, seed, 0) for seed in range(seeds)])
    table = np.array([np.bincount(orders[:, place], minlength=count) for place in range(count)])
    expected = seeds / count
    chi2 = ((table - expected) ** 2 / expected).sum()
    freedom = (count - 1) ** 2
    assert abs(chi2 - freedom) < 4 * np.sqrt(2 * freedom)
    long = permute(np.arange(100_000), 100_000, 3, 0)
    assert abs(np.corrcoef(long[:-1], long[1:])[0, 1]) < 0.015
    assert abs(np.corrcoef(np.arange(100_000), long)[0, 1]) < 0.015
