"""Colour jitter as one affine map of RGB.

Brightness, contrast, saturation and hue are each linear in the pixel (contrast with the image's mean grey), so any
order of them is one 3 × 4 matrix and one pass over the image. Two differences from doing one after the other on
8-bit images: nothing is clipped in between, and hue turns about the grey axis (YIQ) instead of in HSV.
"""

import math

import cv2
import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
LUMA: Matrix = np.array([0.299, 0.587, 0.114])
_GREY: Matrix = np.tile(LUMA, (3, 1))
_YIQ: Matrix = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB: Matrix = np.linalg.inv(_YIQ).astype(np.float64)
IDENTITY: Matrix = np.eye(3, 4)


def brightness(factor: float) -> Matrix:
    """Multiply by `factor`: [3, 3]."""
    return np.eye(3) * factor


def saturation(factor: float) -> Matrix:
    """Blend with the pixel's grey, 0 = grey, 1 = as it is: [3, 3]."""
    return factor * np.eye(3) + (1 - factor) * _GREY


def hue(turn: float) -> Matrix:
    """Turn hues by `turn` of a full circle (positive: red towards yellow), keeping the luma: [3, 3]."""
    cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    return _RGB @ np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]]) @ _YIQ


def after(matrix: Matrix, earlier: Matrix) -> Matrix:
    """The linear map `matrix` [3, 3] after the affine map `earlier` [3, 4]."""
    return matrix @ earlier


def contrast_after(factor: float, earlier: Matrix, mean: Matrix) -> Matrix:
    """Blend with the mean grey of what `earlier` makes of an image whose mean colour is `mean` [3]."""
    grey = LUMA @ (earlier[:, :3] @ mean + earlier[:, 3])
    out = factor * earlier
    out[:, 3] += (1 - factor) * grey
    return out


def draw_jitter(
    rng: np.random.Generator, strength: tuple[float, float, float, float], mean: npt.NDArray[np.floating]
) -> Matrix:
    """A random jitter in random order as an affine map [3, 4].

    Args:
        rng: source of randomness; always the same count of numbers is drawn.
        strength: of brightness, contrast, saturation (factors in 1 ± strength, not below 0), hue (± turns).
        mean: the image's mean colour, [3], 0-255.
    """
    low = np.maximum(0, 1 - np.array(strength[:3]))
    factors = rng.uniform(low, 1 + np.array(strength[:3]))
    turn = rng.uniform(-strength[3], strength[3])
    steps = (brightness(factors[0]), None, saturation(factors[2]), hue(turn))
    out = IDENTITY
    for number in rng.permutation(4):
        step = steps[number]
        out = contrast_after(factors[1], out, np.asarray(mean)) if step is None else after(step, out)
    return out


def apply(image: npt.NDArray[np.uint8], matrix: Matrix) -> npt.NDArray[np.uint8]:
    """An affine map [3, 4] of an RGB uint8 [h, w, 3] image, rounded and clipped."""
    out: npt.NDArray[np.uint8] = cv2.transform(image, matrix)  # type: ignore[assignment]
    return out
