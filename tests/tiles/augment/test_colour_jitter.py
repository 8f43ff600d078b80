import itertools

import numpy as np
import pytest
import torch
from torchvision.transforms import functional

from midnight.tiles.augment import colour_jitter as colour


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.integers(-30, 31, (40, 40, 3)) + np.array([170, 110, 150])).astype(np.uint8)


def ours(image: np.ndarray, pair: np.ndarray) -> np.ndarray:
    matrix = colour.affine(pair[None], image.mean((0, 1))[None])[0]
    return np.clip(np.rint(image @ matrix[:, :3].T + matrix[:, 3]), 0, 255).astype(int)


def theirs(image: np.ndarray, name: str, factor: float) -> np.ndarray:
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    return getattr(functional, f"adjust_{name}")(tensor, factor).permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.2])
@pytest.mark.parametrize("name", ["brightness", "saturation", "contrast"])
def test_each_step_is_torchvision_s(image: np.ndarray, name: str, factor: float) -> None:
    if name == "contrast":
        pair = colour.contrast_after(factor, colour.IDENTITY)
    else:
        pair = colour.after(getattr(colour, name)(factor), colour.IDENTITY)
    assert np.abs(ours(image, pair) - theirs(image, name, factor)).max() <= 1


@pytest.mark.parametrize("turn", [-0.1, 0.05, 0.1])
def test_hue_turns_as_torchvision_s_and_keeps_the_luma(image: np.ndarray, turn: float) -> None:
    made = ours(image, colour.after(colour.hue(turn), colour.IDENTITY))
    assert np.abs((made - image) @ colour.LUMA).max() < 1.1
    chroma = [
        change - (change @ colour.LUMA)[..., None] for change in (made - image, theirs(image, "hue", turn) - image)
    ]
    assert np.corrcoef(chroma[0].ravel(), chroma[1].ravel())[0, 1] > 0.9


def test_greyscale_is_torchvision_s(image: np.ndarray) -> None:
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    expected = functional.rgb_to_grayscale(tensor, 3).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(ours(image, colour.greyscale_after(colour.IDENTITY)) - expected).max() <= 1


@pytest.mark.parametrize("order", [("saturation", "contrast"), ("contrast", "brightness"), ("brightness", "contrast")])
def test_steps_in_one_matrix_are_steps_one_after_the_other(image: np.ndarray, order: tuple[str, str]) -> None:
    pair, expected = colour.IDENTITY, image
    for name in order:
        step = (
            colour.contrast_after(0.7, pair) if name == "contrast" else colour.after(getattr(colour, name)(0.7), pair)
        )
        pair, expected = step, theirs(expected.astype(np.uint8), name, 0.7)
    assert np.abs(ours(image, pair) - expected).max() <= 2


def test_no_strength_is_no_change() -> None:
    assert np.allclose(colour.jitter(np.random.default_rng(0).random(4), np.zeros(4)), colour.IDENTITY, atol=1e-12)


def test_factors_are_uniform_in_their_ranges() -> None:
    rng = np.random.default_rng(0)
    gains = [colour.jitter(rng.random(4), np.array([0.4, 0, 0, 0]))[0, 0] for _ in range(500)]
    assert 0.6 <= min(gains) < 0.63
    assert 1.37 < max(gains) <= 1.4
    strong = [colour.jitter(rng.random(4), np.array([1.5, 0, 0, 0]))[0, 0] for _ in range(500)]
    assert 0 <= min(strong) < 0.05


def test_the_order_of_the_steps_does_not_matter() -> None:
    steps = {
        "brightness": lambda pair: colour.after(colour.brightness(1.3), pair),
        "contrast": lambda pair: colour.contrast_after(0.7, pair),
        "saturation": lambda pair: colour.after(colour.saturation(1.2), pair),
        "hue": lambda pair: colour.after(colour.hue(-0.08), pair),
    }
    uniform = np.array([0.5 + 0.3 / 0.8, 0.5 - 0.3 / 0.8, 1.0, 0.1])
    expected = colour.jitter(uniform, np.array([0.4, 0.4, 0.2, 0.1]))
    for order in itertools.permutations(steps):
        pair = colour.IDENTITY
        for name in order:
            pair = steps[name](pair)
        assert np.allclose(pair, expected, atol=1e-12)
