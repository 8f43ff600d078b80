import dataclasses

import cv2
import numpy as np
import pytest
from PIL import Image

from midnight.config import Crops
from midnight.tiles.augment import colour_jitter
from midnight.tiles.augment.crops import apply_views, multi_crop_into
from midnight.tiles.augment.draws import Draws, draw_views

PLAIN = Crops(global_size=48, local_size=20, n_local=4, jitter_p=0, blur_p=(0, 0, 0), solarize_p=0)


@pytest.fixture(scope="module")
def tile() -> np.ndarray:
    small = np.random.default_rng(0).integers(60, 200, (20, 16, 3), dtype=np.uint8)
    return cv2.resize(small, (96, 80), interpolation=cv2.INTER_CUBIC)


def make(tile: np.ndarray, crops: Crops, seed: int) -> tuple[np.ndarray, np.ndarray]:
    whole = np.empty((2, crops.global_size, crops.global_size, 3), np.uint8)
    local = np.empty((crops.n_local, crops.local_size, crops.local_size, 3), np.uint8)
    multi_crop_into(tile, crops, np.random.default_rng(seed), whole, local)
    return whole, local


def applied(tile: np.ndarray, draws: Draws, crops: Crops) -> np.ndarray:
    whole = np.empty((2, crops.global_size, crops.global_size, 3), np.uint8)
    apply_views(tile, draws, whole, np.empty((0, 1, 1, 3), np.uint8))
    return whole


def globals_only(draws: Draws) -> Draws:
    return Draws(*(getattr(draws, field.name)[:2] for field in dataclasses.fields(draws)))


def test_crops_are_written_into_parts_of_a_batch(tile: np.ndarray) -> None:
    whole, local = np.zeros((3, 2, 48, 48, 3), np.uint8), np.zeros((3, 4, 20, 20, 3), np.uint8)
    multi_crop_into(tile, PLAIN, np.random.default_rng(1), whole[1], local[1])
    expected = make(tile, PLAIN, 1)
    assert np.array_equal(whole[1], expected[0])
    assert np.array_equal(local[1], expected[1])
    assert not whole[[0, 2]].any()
    assert not local[[0, 2]].any()
    assert all(crop.std() > 1 for crop in [*whole[1], *local[1]])


def test_no_local_crops(tile: np.ndarray) -> None:
    whole, _ = make(tile, dataclasses.replace(PLAIN, n_local=0), 0)
    assert whole.std() > 1


def test_the_same_generator_gives_the_same_crops_and_another_others(tile: np.ndarray) -> None:
    first, again, other = (make(tile, Crops(), seed)[1] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_tile_that_is_part_of_a_region_gives_the_same_crops(tile: np.ndarray) -> None:
    region = np.zeros((120, 130, 3), np.uint8)
    region[7:87, 9:105] = tile
    assert np.array_equal(make(region[7:87, 9:105], Crops(), 3)[1], make(tile, Crops(), 3)[1])


@pytest.mark.parametrize("seed", range(12))
def test_a_plain_crop_is_pillow_s_resized_part_of_the_tile(tile: np.ndarray, seed: int) -> None:
    made = np.concatenate([list(group) for group in make(tile, PLAIN, seed)[:1]])
    draws = draw_views(np.random.default_rng(seed), PLAIN, 80, 96)
    for crop, (top, left, h, w), (transpose, vertical, horizontal) in zip(
        made, draws.boxes, draws.turned, strict=False
    ):
        part = Image.fromarray(tile[top : top + h, left : left + w].copy())
        expected = np.asarray(part.resize((48, 48), Image.Resampling.BICUBIC)).astype(int)
        expected = expected.transpose(1, 0, 2) if transpose else expected
        expected = expected[:: -1 if vertical else 1, :: -1 if horizontal else 1]
        assert np.abs(crop - expected).max() <= 2
        assert np.abs(crop - expected).mean() < 0.4


def test_colour_maps_use_the_crop_s_own_mean_and_solarize_comes_last(tile: np.ndarray) -> None:
    crops = dataclasses.replace(PLAIN, jitter_p=1.0, solarize_p=1.0)
    draws = globals_only(draw_views(np.random.default_rng(2), crops, 80, 96))
    off = np.zeros(2, np.bool_)
    plain = applied(tile, dataclasses.replace(draws, coloured=off, solarized=off), crops).astype(float)
    matrix = colour_jitter.affine(draws.colour, plain.mean((1, 2)))
    expected = np.clip(np.einsum("vij,vxyj->vxyi", matrix[..., :3], plain) + matrix[:, None, None, :, 3], 0, 255)
    expected[1] = np.minimum(expected[1], 255 - expected[1])
    assert np.abs(applied(tile, draws, crops) - expected).max() < 1.1


def test_blur_softens(tile: np.ndarray) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    draws = globals_only(draw_views(np.random.default_rng(0), PLAIN, 64, 64))
    sharp, soft = (applied(noise, dataclasses.replace(draws, sigma=np.full(2, s)), PLAIN).std() for s in (0.0, 1.0))
    assert soft < 0.7 * sharp
