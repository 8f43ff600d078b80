from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from midnight.errors import MidnightError
from midnight.evaluate.colour import DIM, GAIN, LEVELS, MEAN, STD, ColourStatistics
from midnight.evaluate.division import split_halves
from midnight.evaluate.encoder import Encoder, load_encoder, patch_map, pool
from midnight.evaluate.quick import measure
from midnight.evaluate.registry import find_model
from midnight.evaluate.segment import check_frozen
from midnight.tiles.augment.hed import HED_FROM_RGB


def tissue(seed: int, count: int = 2, side: int = 28) -> torch.Tensor:
    """Images normalised as the encoder wants them."""
    levels = torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(seed))
    return levels / 255 * 2 - 1


def reference(image: np.ndarray) -> np.ndarray:
    """The features of some pixels (float64 [3, P], normalised), from the definition."""
    density = -np.log(((image * 0.5 + 0.5) * 255 + 1) / 256)
    channels = np.concatenate([image, 2 * np.clip((density.T @ HED_FROM_RGB).T, 0, 1) - 1])
    below = [(channels < level).mean(1) - 0.5 for level in LEVELS]
    return GAIN * np.concatenate([channels.mean(1), channels.std(1), *below])


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(find_model("colour-statistics"), None, 224)


def test_tokens_are_the_statistics_of_the_image_and_of_its_patches(encoder: Encoder) -> None:
    images = tissue(0)
    tokens = encoder.tokens(images)
    assert tokens.shape == (2, 1 + 4, DIM)
    exact = images.double().numpy()
    for number in range(2):
        assert np.allclose(tokens[number, 0], reference(exact[number].reshape(3, -1)), atol=2e-4)
        lower_left = exact[number, :, 14:, :14].reshape(3, -1)
        assert np.allclose(tokens[number, 3], reference(lower_left), atol=2e-4)


def test_the_mean_of_patches_tells_roughness_and_nothing_else_new(encoder: Encoder) -> None:
    pooled = pool(encoder.tokens(tissue(1)), encoder.registers)
    cls, mean = pooled[:, :DIM], pooled[:, DIM:]
    deviations = slice(6, 12)
    others = [i for i in range(DIM) if i not in range(6, 12)]
    assert torch.allclose(cls[:, others], mean[:, others], atol=1e-5)
    assert (mean[:, deviations] <= cls[:, deviations] + 1e-5).all()
    smooth = interpolate(tissue(2, side=2), scale_factor=14, mode="nearest")
    flat = pool(encoder.tokens(smooth), 0)
    assert flat[:, :DIM][:, deviations].min() > 0.05
    assert flat[:, DIM:][:, deviations].abs().max() < 0.02


def test_shapes_do_not_matter_but_colours_do(encoder: Encoder) -> None:
    images = tissue(3)
    order = torch.randperm(28 * 28, generator=torch.Generator().manual_seed(0))
    shuffled = images.flatten(2)[..., order].reshape(images.shape)
    assert torch.allclose(encoder.tokens(images)[:, 0], encoder.tokens(shuffled)[:, 0], atol=1e-4)
    assert not torch.allclose(encoder.tokens(images)[:, 0], encoder.tokens(images.flip(1))[:, 0], atol=0.1)


def test_it_is_an_encoder_like_any_other(encoder: Encoder) -> None:
    assert (encoder.dim, encoder.registers, encoder.mean, encoder.std) == (DIM, 0, MEAN, STD)
    assert check_frozen(encoder) == check_frozen(encoder)
    assert patch_map(encoder.tokens(tissue(4)), 0).shape == (2, DIM, 2, 2)
    assert encoder.hash == load_encoder(find_model("colour-statistics"), None, 98).hash
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = encoder.tokens(tissue(5))
    assert torch.equal(half, encoder.tokens(tissue(5)))
    with pytest.raises(MidnightError, match=r"models\.colour-statistics\.sizes: doesn't take inputs of 100 px"):
        load_encoder(find_model("colour-statistics"), None, 100)


def test_constant_images_have_finite_features() -> None:
    for level in (-1.0, 1.0):
        assert torch.isfinite(ColourStatistics().forward_features(torch.full((1, 3, 14, 14), level))).all()


def test_colour_tells_real_tissues_apart(encoder: Encoder, real_data: Path) -> None:
    """Seven tissues, chance 1/7: far more by colour alone, so a model's score means little without this one."""
    root = real_data / "labelled" / "colorectal-cancer"
    names = sorted(path.name for path in root.iterdir())
    files = [(number, path) for number, name in enumerate(names) for path in sorted((root / name).glob("*.jpg"))]
    arrays = [np.asarray(Image.open(path).convert("RGB").resize((112, 112))) for _, path in files]
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 127.5 - 1
    features = pool(encoder.tokens(images), 0).numpy()
    labels = np.array([number for number, _ in files])
    halves = [split_halves(labels, seed) for seed in range(4)]
    found = [measure(features[h["train"]], labels[h["train"]], features[h["val"]], labels[h["val"]]) for h in halves]
    assert np.mean([scores["linear"] for scores in found]) > 0.55
    assert np.mean([scores["knn"] for scores in found]) > 0.4
