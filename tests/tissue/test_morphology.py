import numpy as np
import pytest

from midnight.tissue.morphology import close, remove_small, tidy


def test_gaps_up_to_the_diameter_are_closed() -> None:
    mask = np.zeros((60, 60), bool)
    mask[10:50, 10:28] = mask[10:50, 32:50] = True
    assert close(mask, 8)[30, 10:50].all()
    assert not close(mask, 2)[30, 29:31].any()


def test_closing_does_not_grow_at_the_border() -> None:
    mask = np.zeros((40, 40), bool)
    mask[:20] = True
    assert np.array_equal(close(mask, 10), mask)


def test_pieces_and_holes_below_the_area_go_and_others_stay() -> None:
    mask = np.zeros((100, 100), bool)
    mask[10:60, 10:60] = True
    mask[20:24, 20:24] = False
    mask[30:50, 30:50] = False
    mask[80:84, 80:84] = True
    out = tidy(mask, mpp=10, close_um=0, min_area_mm2=100 * 1e-4)
    assert out[22, 22]
    assert not out[40, 40]
    assert not out[82, 82]
    assert out.sum() == 50 * 50 - 20 * 20


@pytest.mark.parametrize("value", [False, True])
def test_uniform_masks_stay(value: bool) -> None:
    mask = np.full((50, 50), value)
    assert np.array_equal(tidy(mask, 8, 40, 0.001), mask)


def test_nothing_is_removed_at_no_area() -> None:
    mask = np.eye(9, dtype=bool)
    assert np.array_equal(remove_small(mask, 0), mask)
