import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import hed_from_rgb, rgb_from_hed, separate_stains

from midnight.errors import MidnightError
from midnight.tiles.augment.hed import (
    HED_FROM_RGB,
    RGB_FROM_HED,
    StainShift,
    apply_shift,
    augment,
    draw_shift,
    reference_shift,
)


@pytest.fixture(scope="module")
def million() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)


def test_matrices_are_those_of_scikit_image() -> None:
    assert np.allclose(RGB_FROM_HED, rgb_from_hed)
    assert np.allclose(HED_FROM_RGB, hed_from_rgb)


def test_stain_amounts_are_those_of_scikit_image(million: np.ndarray) -> None:
    transmitted = (million[:50].astype(float) + 1) / 256
    # scikit-image divides densities by ln 1e6 and cuts negative amounts.
    theirs = separate_stains(transmitted, hed_from_rgb) * -np.log(1e-6)
    ours = -np.log(transmitted) @ HED_FROM_RGB
    assert np.allclose(np.maximum(ours, 0), theirs, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.05, 0.2])
def test_the_fast_form_is_within_one_level_of_float64(million: np.ndarray, sigma: float) -> None:
    """10⁶ random colours in 20 parts, each with its own shift; 0.6 instead of ½ since densities are in 1/4096."""
    rng = np.random.default_rng(1)
    for part in np.split(million, 20):
        shift = draw_shift(rng, sigma)
        error = apply_shift(part, shift).astype(float) - reference_shift(part, shift)
        assert np.abs(error).max() < 0.6
        assert (np.abs(error) > 0.502).mean() < 0.03
        assert abs(error.mean()) < 0.02


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.5))
def test_any_shift_up_to_sigma_one_half_is_close(seed: int, sigma: float) -> None:
    rng = np.random.default_rng(seed)
    shift, tile = draw_shift(rng, sigma), rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    assert np.abs(apply_shift(tile, shift) - reference_shift(tile, shift)).max() < 0.6


def test_the_largest_shifts_up_to_sigma_one_half_are_in_range() -> None:
    extremes = np.array(np.meshgrid(*[[-0.5, 0.5]] * 6)).reshape(6, -1).T
    colours = np.array(np.meshgrid(*[[0, 255]] * 3), np.uint8).T.reshape(1, -1, 3)
    for row in extremes:
        shift = StainShift(1 + row[:3], row[3:])
        assert np.abs(apply_shift(colours, shift) - reference_shift(colours, shift)).max() < 0.6


def test_a_shift_out_of_range_is_an_error_and_no_wrong_colour() -> None:
    with pytest.raises(MidnightError, match="hed_sigma"):
        apply_shift(np.zeros((2, 2, 3), np.uint8), StainShift(np.array([9.0, 1, 1]), np.zeros(3)))


def test_a_tile_that_is_part_of_a_region_is_shifted_alone(million: np.ndarray) -> None:
    shift = draw_shift(np.random.default_rng(0), 0.1)
    part = million[3:20, 5:9]
    assert np.array_equal(apply_shift(part, shift), apply_shift(part.copy(), shift))


def test_no_shift_changes_nothing(million: np.ndarray) -> None:
    assert np.array_equal(apply_shift(million, StainShift(np.ones(3), np.zeros(3))), million)
    assert augment(million, np.random.default_rng(0), 0.0) is million


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.5))
def test_factors_and_offsets_lie_in_their_ranges(seed: int, sigma: float) -> None:
    shift = draw_shift(np.random.default_rng(seed), sigma)
    assert (np.abs(shift.alpha - 1) <= sigma + 1e-12).all()
    assert (np.abs(shift.beta) <= sigma + 1e-12).all()


def test_factors_and_offsets_are_spread_evenly_to_both_sides() -> None:
    rng = np.random.default_rng(0)
    shifts = [draw_shift(rng, 0.2) for _ in range(4000)]
    for values in (np.array([shift.alpha for shift in shifts]) - 1, np.array([shift.beta for shift in shifts])):
        assert np.quantile(values, [0, 0.25, 0.5, 0.75, 1], axis=0) == pytest.approx(
            np.outer([-0.2, -0.1, 0, 0.1, 0.2], np.ones(3)), abs=0.01
        )
        assert np.corrcoef(values.T) == pytest.approx(np.eye(3), abs=0.06)


def test_a_light_shift_is_light() -> None:
    tissue = np.full((16, 16, 3), (205, 130, 180), np.uint8)
    rng = np.random.default_rng(0)
    changes = [np.abs(augment(tissue, rng, 0.05).astype(float) - tissue).mean() for _ in range(300)]
    assert 2 < np.mean(changes) < 12


def test_more_haematoxylin_is_bluer_and_darker() -> None:
    purple = np.full((4, 4, 3), (120, 80, 150), np.uint8)
    more = apply_shift(purple, StainShift(np.array([1.2, 1, 1]), np.zeros(3)))[0, 0].astype(int)
    assert (more < purple[0, 0]).all()
    assert 120 - more[0] > 150 - more[2]
