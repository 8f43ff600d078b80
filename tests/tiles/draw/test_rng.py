import numpy as np

from midnight.tiles.draw.rng import Generators, Purpose, generator


def test_the_same_place_gives_the_same_numbers() -> None:
    assert np.array_equal(generator(1, 7, Purpose.CROPS).random(9), generator(1, 7, Purpose.CROPS).random(9))


def test_seed_index_and_purpose_give_different_numbers() -> None:
    drawn = {
        tuple(generator(seed, index, purpose).random(3))
        for seed in (0, 1, 2**63)
        for index in (0, 1, 2**40)
        for purpose in Purpose
    }
    assert len(drawn) == 3 * 3 * len(Purpose)


def test_neighbours_do_not_overlap_or_correlate() -> None:
    numbers = np.array([generator(0, index, Purpose.PLACE).random(4) for index in range(3000)])
    assert len(np.unique(numbers)) == numbers.size
    assert np.abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 0.06
    assert abs(np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]) < 0.06


def test_reused_generators_give_the_same_numbers() -> None:
    numbers = Generators(3)
    for index, attempt in ((0, 0), (7, 0), (2**40, 5), (7, 0)):
        for purpose in Purpose:
            made = numbers.at(purpose, index, attempt)
            fresh = generator(3, index, purpose, attempt)
            assert made.random() == fresh.random()
            assert np.array_equal(made.integers(0, 7, 5, np.uint32), fresh.integers(0, 7, 5, np.uint32))


def test_attempts_differ() -> None:
    drawn = {tuple(generator(0, index, Purpose.PLACE, attempt).random(2)) for index in (0, 1) for attempt in range(64)}
    assert len(drawn) == 128
