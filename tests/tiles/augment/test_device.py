import cv2
import numpy as np
import pytest
import torch

from midnight.config import Crops
from midnight.tiles.augment import device as module
from midnight.tiles.augment.axis_map import axis_weights
from midnight.tiles.augment.crops import multi_crop_into
from midnight.tiles.augment.device import DeviceAugment
from midnight.tiles.augment.hed import augment
from midnight.tiles.draw.rng import Purpose, generator

SIGMA, SEED = 0.05, 7
SMALL = {"global_size": 56, "local_size": 28, "n_local": 3}
RECIPES = {
    "plain": Crops(**SMALL, jitter_p=0, blur_p=(0, 0, 0), solarize_p=0),
    "blur": Crops(**SMALL, jitter_p=0, blur_p=(1, 1, 1), solarize_p=0),
    "all": Crops(**SMALL, grayscale_p=0.2, solarize_p=0.5),
}


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    """Tissue-like: detail of a few px, colours around an eosin pink."""
    noise = np.random.default_rng(0).normal(0, 90, (12, 64, 64, 3))
    smooth = np.stack([cv2.GaussianBlur(one, (0, 0), 1.2) for one in noise])
    return np.clip(smooth + np.array([190, 140, 175]), 0, 255).astype(np.uint8)


def on_cpu(tiles: np.ndarray, crops: Crops) -> dict[str, np.ndarray]:
    whole = np.empty((len(tiles), 2, crops.global_size, crops.global_size, 3), np.uint8)
    local = np.empty((len(tiles), crops.n_local, crops.local_size, crops.local_size, 3), np.uint8)
    for i, tile in enumerate(tiles):
        stained = augment(tile, generator(SEED, i, Purpose.STAIN), SIGMA)
        multi_crop_into(stained, crops, generator(SEED, i, Purpose.CROPS), whole[i], local[i])
    return {"global_crops": whole, "local_crops": local}


def on_device(tiles: np.ndarray, crops: Crops) -> dict[str, np.ndarray]:
    """Levels 0-255, [B, V, h, w, 3]."""
    made = DeviceAugment(crops, SIGMA, SEED)(torch.from_numpy(tiles), torch.arange(len(tiles)))
    return {name: ((value * 0.5 + 0.5) * 255).permute(0, 1, 3, 4, 2).numpy() for name, value in made.items()}


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_view_is_that_of_the_cpu_path(tiles: np.ndarray, name: str) -> None:
    expected, made = on_cpu(tiles, RECIPES[name]), on_device(tiles, RECIPES[name])
    for kind, crops in expected.items():
        error = np.abs(made[kind] - crops).mean((2, 3, 4))
        # Rounding to 8 bits three times on one path costs about half a level, strong jitter multiplies it.
        assert error.max() < 1.5, kind
        assert error.mean() < 0.6, kind


def test_both_paths_have_the_same_statistics(tiles: np.ndarray) -> None:
    many = np.concatenate([tiles] * 8)
    expected, made = on_cpu(many, RECIPES["all"]), on_device(many, RECIPES["all"])
    for kind in expected:
        for view in range(expected[kind].shape[1]):
            pair = [one[kind][:, view].astype(float) for one in (expected, made)]
            means, spreads = [one.mean((0, 1, 2)) for one in pair], [one.std() for one in pair]
            edges = [np.square(np.diff(one, axis=2)).mean() for one in pair]
            assert means[0] == pytest.approx(means[1], abs=0.3)
            assert spreads[0] == pytest.approx(spreads[1], rel=0.01)
            assert edges[0] == pytest.approx(edges[1], rel=0.03)


@pytest.mark.parametrize(("start", "extent", "size", "sigma"), [(3, 40, 56, 0.0), (0, 64, 20, 1.3), (9, 11, 28, 0.2)])
def test_matrices_are_the_weights_of_the_cpu_path(start: int, extent: int, size: int, sigma: float) -> None:
    arguments = torch.tensor([start]), torch.tensor([extent]), torch.tensor([sigma])
    made = module.axis_matrix(*arguments, torch.tensor([False]), size, 64)[0].numpy()
    first, weights = axis_weights(extent, size, sigma)
    expected = np.zeros((size, 64 + weights.shape[1]))
    for i in range(size):
        expected[i, start + first[i] : start + first[i] + weights.shape[1]] = weights[i]
    assert np.allclose(made, expected[:, :64], atol=1e-5)
    flipped = module.axis_matrix(*arguments, torch.tensor([True]), size, 64)[0].numpy()
    assert np.array_equal(flipped, made[::-1])


def test_a_sample_does_not_depend_on_its_batch(tiles: np.ndarray) -> None:
    augmenter = DeviceAugment(RECIPES["all"], SIGMA, SEED)
    together = augmenter(torch.from_numpy(tiles[:4]), torch.tensor([5, 6, 7, 8]))
    alone = augmenter(torch.from_numpy(tiles[2:3]), torch.tensor([7]))
    for kind, value in alone.items():
        assert torch.allclose(value[0], together[kind][2], atol=1e-4)


def test_shapes_normalisation_and_no_local_crops(tiles: np.ndarray) -> None:
    crops = Crops(global_size=30, local_size=20, n_local=0, jitter_p=0, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    made = DeviceAugment(crops, 0.0, SEED)(torch.full((2, 40, 48, 3), 255, dtype=torch.uint8), torch.arange(2))
    assert made["global_crops"].shape == (2, 2, 3, 30, 30)
    assert made["local_crops"].shape == (2, 0, 3, 20, 20)
    assert made["global_crops"].dtype == torch.float32
    white = made["global_crops"][0, 0, :, 0, 0]
    assert torch.allclose(white, torch.tensor([1.8, 3.2, 0.35]), atol=1e-4)


def test_autocast_does_not_coarsen_the_pixels(tiles: np.ndarray) -> None:
    plain = on_device(tiles[:2], RECIPES["all"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(np.array_equal(value, plain[kind]) for kind, value in on_device(tiles[:2], RECIPES["all"]).items())
