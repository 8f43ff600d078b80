import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from midnight.tiles.draw import positions
from midnight.tiles.draw.foreground import MaskView, mask_view
from midnight.tiles.draw.positions import Blocks, draw_from_blocks, find_blocks, position_share
from midnight.tiles.read.reader import Window, plan
from tests.tissue.small_slides import make_record


def case(mask: np.ndarray, size: int, mpp: float, scale: int = 4, downsample: float = 2.0) -> tuple[MaskView, Window]:
    record = make_record(mask, scale=scale, downsamples=(1.0, downsample))
    window = plan(record, size, mpp)
    assert window is not None
    return mask_view(record), window


def valid(view: MaskView, window: Window, foreground: float) -> np.ndarray:
    """By brute force: bool [rows, columns]."""
    shares = [
        [position_share(view, window, column, row) for column in range(window.columns)] for row in range(window.rows)
    ]
    return np.array(shares) >= foreground


def covered(blocks: Blocks, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """How often each position is in a block, and in a sure one."""
    every, sure = np.zeros(shape, int), np.zeros(shape, int)
    for number, (c0, c1, r0, r1) in enumerate(blocks.bounds):
        every[r0 : r1 + 1, c0 : c1 + 1] += 1
        if number < blocks.sure:
            sure[r0 : r1 + 1, c0 : c1 + 1] += 1
    return every, sure


@settings(max_examples=60)
@given(
    st.integers(0, 9999),
    st.floats(0.05, 1.0),
    st.sampled_from([0.5, 0.8, 1.0, 1.3]),
    st.sampled_from([2.0, 2.003]),
    st.sampled_from([0.0, 0.1, 0.4, 0.9, 1.0]),
)
def test_blocks_hold_all_valid_positions_once_and_sure_ones_are_valid(
    seed: int, density: float, mpp: float, downsample: float, foreground: float
) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.random((4, 5)) < density
    view, window = case(np.kron(coarse, np.ones((3, 3), bool)), 12, mpp, downsample=downsample)
    truth = valid(view, window, foreground)
    every, sure = covered(find_blocks(view, window, foreground), truth.shape)
    assert every.max(initial=0) <= 1
    assert (every[truth] == 1).all()
    assert truth[sure > 0].all()
    if not truth.any():
        rng = np.random.default_rng(0)
        assert draw_from_blocks(rng, find_blocks(view, window, foreground), view, window, foreground) is None


def piece() -> tuple[MaskView, Window]:
    """A slide with one small piece of tissue: 1 % of the positions are valid."""
    mask = np.zeros((60, 70), bool)
    mask[20:26, 30:37] = True
    return case(mask, 16, 1.0)


def test_at_least_half_of_the_candidates_are_valid() -> None:
    view, window = piece()
    truth = valid(view, window, 0.4)
    blocks = find_blocks(view, window, 0.4)
    assert 0.003 < truth.mean() < 0.02
    assert blocks.counts.sum() <= 2 * truth.sum()


def test_positions_from_blocks_are_uniform_over_the_valid_ones() -> None:
    view, window = piece()
    truth = valid(view, window, 0.4)
    blocks = find_blocks(view, window, 0.4)
    rng = np.random.default_rng(0)
    counts = np.zeros(truth.shape, int)
    for _ in range(20 * truth.sum()):
        drawn = draw_from_blocks(rng, blocks, view, window, 0.4)
        assert drawn is not None
        counts[drawn[1], drawn[0]] += 1
    assert not counts[~truth].any()
    assert stats.chisquare(counts[truth]).pvalue > 1e-3


def test_the_search_ends_where_every_share_is_on_the_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "MAX_BLOCKS", 500)
    board = np.indices((64, 64)).sum(0) % 2 == 0
    view, window = case(board, 32, 1.0)
    blocks = find_blocks(view, window, 0.5)
    assert len(blocks.bounds) <= 500
    drawn = draw_from_blocks(np.random.default_rng(0), blocks, view, window, 0.5)
    assert drawn is not None
    assert position_share(view, window, *drawn) >= 0.5
