import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.config import Crops
from midnight.tiles.augment.draws import draw_box, draw_orientation, draw_views, views


def turn(image: np.ndarray, transpose: bool, vertical: bool, horizontal: bool) -> np.ndarray:
    image = image.T if transpose else image
    return image[:: -1 if vertical else 1, :: -1 if horizontal else 1]


@given(
    st.integers(0, 2**32 - 1), st.integers(20, 600), st.integers(20, 600), st.sampled_from([(0.32, 1), (0.05, 0.32)])
)
def test_boxes_lie_inside(seed: int, height: int, width: int, scale: tuple[float, float]) -> None:
    top, left, h, w = draw_box(np.random.default_rng(seed).random(22), height, width, *map(float, scale))
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    assert h > 0
    assert w > 0


@given(st.integers(0, 2**32 - 1), st.sampled_from([(0.32, 1.0), (0.05, 0.32)]))
def test_boxes_of_square_tiles_keep_to_the_shares_and_ratios(seed: int, scale: tuple[float, float]) -> None:
    _, _, h, w = draw_box(np.random.default_rng(seed).random(22), 256, 256, *scale)
    assert scale[0] - 0.01 < h * w / 256**2 < scale[1] + 0.01
    assert 0.73 < w / h < 1.37


def test_boxes_have_the_shares_and_ratios_of_random_resized_crop() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([draw_box(rng.random(22), 1000, 1000, 0.05, 0.32) for _ in range(4000)], float)
    share, ratio = boxes[:, 2] * boxes[:, 3] / 1e6, boxes[:, 3] / boxes[:, 2]
    assert 0.0498 < share.min() < 0.053
    assert 0.317 < share.max() < 0.3205
    assert share.mean() == pytest.approx(0.185, abs=0.005)
    assert 0.747 < ratio.min() < 0.76
    assert 1.31 < ratio.max() < 1.338
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.01)
    for place, extent in ((boxes[:, 0], boxes[:, 2]), (boxes[:, 1], boxes[:, 3])):
        assert (place / (1000 - extent)).mean() == pytest.approx(0.5, abs=0.02)


def test_a_box_that_never_fits_becomes_the_largest_central_one() -> None:
    assert draw_box(np.random.default_rng(0).random(22), 30, 300, 0.9, 1.0) == (0, 130, 30, 40)


@pytest.mark.parametrize("quarter", range(4))
@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("vertical", [False, True])
def test_orientations_are_flips_and_then_turns(vertical: bool, horizontal: bool, quarter: int) -> None:
    uniform = np.array([0.6 - 0.5 * vertical, 0.6 - 0.5 * horizontal, quarter / 4 + 0.1])
    image = np.arange(6).reshape(2, 3)
    expected = np.rot90(image[:: -1 if vertical else 1, :: -1 if horizontal else 1], quarter)
    assert np.array_equal(turn(image, *draw_orientation(uniform, True, True)), expected)


@pytest.mark.parametrize(("flips", "rotations", "kinds"), [(0, 0, 1), (1, 0, 4), (0, 1, 4), (1, 1, 8)])
def test_orientations_are_equally_likely_and_can_be_switched_off(flips: int, rotations: int, kinds: int) -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_orientation(rng.random(3), bool(flips), bool(rotations)) for _ in range(4000)]
    counts = [drawn.count(kind) for kind in set(drawn)]
    assert len(counts) == kinds
    assert max(abs(count - 4000 / kinds) for count in counts) < 5 * np.sqrt(4000 / kinds)


def test_views_have_the_probabilities_of_dinov2() -> None:
    whole, local = views(Crops())
    assert [(view.size, view.scale, view.blur, view.solarize) for view in whole] == [
        (224, (0.32, 1.0), 0.0, 0.0),
        (224, (0.32, 1.0), 0.9, 0.2),
    ]
    assert {(view.size, view.scale, view.blur, view.solarize) for view in local} == {(98, (0.05, 0.32), 0.5, 0.0)}
    assert len(local) == 8


def test_everything_happens_as_often_as_it_should() -> None:
    rng = np.random.default_rng(0)
    draws = [draw_views(rng, Crops(n_local=2), 256, 256) for _ in range(2000)]
    blurred = np.mean([one.sigma > 0 for one in draws], axis=0)
    assert blurred == pytest.approx([0, 0.9, 0.5, 0.5], abs=0.05)
    assert np.mean([one.coloured for one in draws], axis=0) == pytest.approx([0.8] * 4, abs=0.04)
    assert np.mean([one.solarized for one in draws], axis=0) == pytest.approx([0, 0.2, 0, 0], abs=0.04)
    sigma = np.array([one.sigma[1] for one in draws if one.sigma[1] > 0])
    assert (sigma.min(), sigma.mean(), sigma.max()) == pytest.approx((0.1, 1.05, 2.0), abs=0.03)
    areas = np.mean([one.boxes[:, 2] * one.boxes[:, 3] for one in draws], axis=0) / 256**2
    assert areas[2:] == pytest.approx([0.185] * 2, abs=0.01)
    plain = [not np.array_equal(one.colour[0], np.eye(3, 6)) for one in draws]
    assert plain == [bool(one.coloured[0]) for one in draws]


def test_greyscale_and_switched_off_jitter() -> None:
    grey = draw_views(np.random.default_rng(0), Crops(jitter_p=0, grayscale_p=1.0), 256, 256)
    assert grey.coloured.all()
    assert np.allclose(grey.colour, grey.colour[:, :1])
    assert not draw_views(np.random.default_rng(0), Crops(jitter_p=0), 256, 256).coloured.any()


def test_one_key_does_not_move_the_others_numbers() -> None:
    first = draw_views(np.random.default_rng(4), Crops(), 256, 256)
    other = draw_views(np.random.default_rng(4), Crops(jitter_p=0, flips=False, solarize_p=1.0), 256, 256)
    assert np.array_equal(first.boxes, other.boxes)
    assert np.array_equal(first.sigma, other.sigma)
