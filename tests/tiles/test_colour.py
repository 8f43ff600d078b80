import numpy as np
import pytest
import torch
from torchvision.transforms import functional

from midnight.tiles import colour


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.integers(-30, 31, (40, 40, 3)) + np.array([170, 110, 150])).astype(np.uint8)


def theirs(image: np.ndarray, name: str, factor: float) -> np.ndarray:
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    return getattr(functional, f"adjust_{name}")(tensor, factor).permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.2])
@pytest.mark.parametrize("name", ["brightness", "saturation", "contrast"])
def test_each_step_is_torchvision_s(image: np.ndarray, name: str, factor: float) -> None:
    if name == "contrast":
        matrix = colour.contrast_after(factor, colour.IDENTITY, image.mean(axis=(0, 1)))
    else:
        matrix = colour.after(getattr(colour, name)(factor), colour.IDENTITY)
    assert np.abs(colour.apply(image, matrix).astype(int) - theirs(image, name, factor)).max() <= 1


@pytest.mark.parametrize("turn", [-0.1, 0.05, 0.1])
def test_hue_turns_as_torchvision_s_and_keeps_the_luma(image: np.ndarray, turn: float) -> None:
    ours = colour.apply(image, colour.after(colour.hue(turn), colour.IDENTITY)).astype(int)
    assert np.abs((ours - image) @ colour.LUMA).max() < 1.1
    ours_change, their_change = ours - image, theirs(image, "hue", turn) - image
    chroma = [change - (change @ colour.LUMA)[..., None] for change in (ours_change, their_change)]
    assert np.corrcoef(chroma[0].ravel(), chroma[1].ravel())[0, 1] > 0.9


def test_steps_in_one_matrix_are_steps_one_after_the_other(image: np.ndarray) -> None:
    mean = image.mean(axis=(0, 1))
    first = colour.after(colour.saturation(0.8), colour.IDENTITY)
    both = colour.apply(image, colour.contrast_after(0.7, first, mean)).astype(int)
    expected = theirs(theirs(image, "saturation", 0.8).astype(np.uint8), "contrast", 0.7)
    assert np.abs(both - expected).max() <= 2


def test_no_strength_is_no_change(image: np.ndarray) -> None:
    matrix = colour.draw_jitter(np.random.default_rng(0), (0, 0, 0, 0), image.mean(axis=(0, 1)))
    assert np.allclose(matrix, colour.IDENTITY, atol=1e-12)


def test_jitter_draws_all_orders_and_strengths_in_range() -> None:
    rng = np.random.default_rng(0)
    gains = [colour.draw_jitter(rng, (0.4, 0.0, 0.0, 0.0), np.zeros(3))[0, 0] for _ in range(500)]
    assert 0.6 <= min(gains) < 0.63
    assert 1.37 < max(gains) <= 1.4
