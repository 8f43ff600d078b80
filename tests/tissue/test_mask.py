import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from midnight.tissue.mask import crop, integral, pack, unpack, unpack_rows

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))


@given(masks)
def test_unpacking_undoes_packing(mask: np.ndarray) -> None:
    unpacked = unpack(pack(mask), mask.shape[1], mask.shape[0])
    assert unpacked.dtype == bool
    assert np.array_equal(unpacked, mask)


@given(masks, st.data())
def test_a_crop_of_the_packed_rows_is_a_crop_of_the_mask(mask: np.ndarray, data: st.DataObject) -> None:
    top, left = data.draw(st.integers(0, mask.shape[0])), data.draw(st.integers(0, mask.shape[1]))
    bottom, right = data.draw(st.integers(top, mask.shape[0])), data.draw(st.integers(left, mask.shape[1]))
    rows = unpack_rows(pack(mask), mask.shape[1], mask.shape[0])
    assert np.array_equal(crop(rows, left, top, right, bottom), mask[top:bottom, left:right])


@given(masks)
def test_the_integral_sums_what_lies_above_and_left(mask: np.ndarray) -> None:
    sums = integral(mask)
    assert sums[-1, -1] == mask.sum()
    y, x = mask.shape[0] // 2, mask.shape[1] // 3
    assert sums[y, x] == mask[:y, :x].sum()


def test_a_large_mask_packs_small() -> None:
    mask = np.zeros((2000, 3000), bool)
    mask[300:1500, 400:2200] = True
    assert len(pack(mask)) < 20_000
