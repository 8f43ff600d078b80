import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from midnight.tissue.blocks import EMPTY, FULL, grid, to_blocks


@given(st.integers(0, 9999), st.integers(1, 100), st.integers(1, 100), st.sampled_from([0.0, 0.3, 0.9, 1.0]))
def test_unpacking_gives_the_mask_back(seed: int, height: int, width: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.random((4, 4)) < density, np.ones((25, 25), bool))[:height, :width]
    mask = coarse ^ (rng.random((height, width)) < 0.001)
    blocks = to_blocks(np.packbits(mask, axis=1), width, height)
    assert np.array_equal(blocks.unpack(), mask)
    assert blocks.codes.shape == grid(width, height)
    assert blocks.mixed == (blocks.codes >= 0).sum()


def test_only_blocks_on_an_edge_keep_their_bits() -> None:
    mask = np.zeros((128, 96), bool)
    mask[:64, :64] = True
    mask[100, 70] = True
    blocks = to_blocks(np.packbits(mask, axis=1), 96, 128)
    assert blocks.codes.tolist() == [
        [FULL, FULL, EMPTY],
        [FULL, FULL, EMPTY],
        [EMPTY, EMPTY, EMPTY],
        [EMPTY, EMPTY, 0],
    ]
    assert blocks.whole()[0, 4] == 1 << (31 - 6)
