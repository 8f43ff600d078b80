import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.config import Crops
from midnight.tiles import crops as module
from midnight.tiles.crops import draw_box, multi_crop, orient, photometric, resized_crop, views

PLAIN = Crops(
    global_size=32, local_size=16, n_local=4, jitter_p=0, blur_p=(0, 0, 0), solarize_p=0, flips=False, rotations=False
)


@pytest.fixture(scope="module")
def tile() -> np.ndarray:
    small = np.random.default_rng(0).integers(60, 200, (16, 16, 3), dtype=np.uint8)
    return cv2.resize(small, (96, 96), interpolation=cv2.INTER_CUBIC)


def test_shapes_and_types(tile: np.ndarray) -> None:
    whole, local = multi_crop(tile, Crops(global_size=48, local_size=20, n_local=5), np.random.default_rng(0))
    assert (whole.shape, whole.dtype) == ((2, 3, 48, 48), np.uint8)
    assert (local.shape, local.dtype) == ((5, 3, 20, 20), np.uint8)
    assert whole.flags.c_contiguous


def test_no_local_crops(tile: np.ndarray) -> None:
    _, local = multi_crop(tile, Crops(global_size=48, local_size=20, n_local=0), np.random.default_rng(0))
    assert local.shape == (0, 3, 20, 20)


def test_the_same_generator_gives_the_same_crops_and_another_others(tile: np.ndarray) -> None:
    first, again, other = (multi_crop(tile, Crops(), np.random.default_rng(seed))[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@given(
    st.integers(0, 2**32 - 1), st.integers(20, 600), st.integers(20, 600), st.sampled_from([(0.32, 1), (0.05, 0.32)])
)
def test_boxes_lie_inside(seed: int, height: int, width: int, scale: tuple[float, float]) -> None:
    top, left, h, w = draw_box(np.random.default_rng(seed), height, width, scale)
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    assert h > 0
    assert w > 0


def test_boxes_have_the_shares_and_ratios_of_random_resized_crop() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([draw_box(rng, 1000, 1000, (0.05, 0.32)) for _ in range(4000)], float)
    share, ratio = boxes[:, 2] * boxes[:, 3] / 1e6, boxes[:, 3] / boxes[:, 2]
    assert 0.0498 < share.min() < 0.053
    assert 0.317 < share.max() < 0.3205
    assert share.mean() == pytest.approx(0.185, abs=0.005)
    assert 0.747 < ratio.min() < 0.76
    assert 1.31 < ratio.max() < 1.338
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.01)


def test_a_box_that_never_fits_becomes_the_largest_central_one() -> None:
    assert draw_box(np.random.default_rng(0), 30, 300, (0.9, 1.0)) == (0, 130, 30, 40)


def test_without_augmentation_a_crop_is_a_resized_part_of_the_tile(tile: np.ndarray) -> None:
    rng = np.random.default_rng(5)
    whole, _ = multi_crop(tile, PLAIN, rng)
    box = draw_box(np.random.default_rng(5), 96, 96, PLAIN.global_scale)
    assert np.array_equal(whole[0], resized_crop(tile, box, 32).transpose(2, 0, 1))


def test_whole_tiles_resize_to_their_mean(tile: np.ndarray) -> None:
    for size in (24, 200):
        assert np.allclose(resized_crop(tile, (0, 0, 96, 96), size).mean((0, 1)), tile.mean((0, 1)), atol=0.7)


def test_all_eight_orientations_are_equally_likely() -> None:
    rng = np.random.default_rng(0)
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    counts: dict[bytes, int] = {}
    for _ in range(4000):
        name = orient(image, rng, True, True).tobytes()
        counts[name] = counts.get(name, 0) + 1
    assert len(counts) == 8
    assert max(abs(count - 500) for count in counts.values()) < 5 * np.sqrt(500)


@pytest.mark.parametrize(("flips", "rotations", "kinds"), [(False, False, 1), (True, False, 4), (False, True, 4)])
def test_flips_and_rotations_can_be_switched_off(flips: bool, rotations: bool, kinds: int) -> None:
    rng = np.random.default_rng(0)
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert len({orient(image, rng, flips, rotations).tobytes() for _ in range(100)}) == kinds


def test_views_have_the_probabilities_of_dinov2() -> None:
    whole, local = views(Crops())
    assert [(view.size, view.scale, view.blur, view.solarize) for view in whole] == [
        (224, (0.32, 1.0), 1.0, 0.0),
        (224, (0.32, 1.0), 0.1, 0.2),
    ]
    assert {(view.size, view.scale, view.blur, view.solarize) for view in local} == {(98, (0.05, 0.32), 0.5, 0.0)}
    assert len(local) == 8


def test_blur_and_solarize_happen_as_often_as_they_should(tile: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    happened = {"blur": 0, "solarize": 0}

    def blur(image: np.ndarray, *_: object, **__: object) -> np.ndarray:
        happened["blur"] += 1
        return image

    def solarize(image: np.ndarray, table: np.ndarray) -> np.ndarray:
        happened["solarize"] += 1
        assert table[100] == 100
        assert table[200] == 55
        return image

    monkeypatch.setattr(module.cv2, "GaussianBlur", blur)
    monkeypatch.setattr(module.cv2, "LUT", solarize)
    rng = np.random.default_rng(0)
    settings = Crops(global_size=4, local_size=4, n_local=1, jitter_p=0)
    for _ in range(1000):
        multi_crop(tile, settings, rng)
    assert happened["blur"] == pytest.approx(1000 * (1 + 0.1 + 0.5), abs=60)
    assert happened["solarize"] == pytest.approx(200, abs=50)


def test_blur_softens_and_greyscale_is_grey(tile: np.ndarray) -> None:
    view = views(Crops())[0][0]
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    soft = [photometric(noise, view, Crops(jitter_p=0), rng).std() for _ in range(20)]
    assert min(soft) < 0.5 * noise.std()
    grey = photometric(tile, view, Crops(jitter_p=0, grayscale_p=1.0), rng).astype(int)
    assert np.ptp(grey, axis=2).max() <= 1
