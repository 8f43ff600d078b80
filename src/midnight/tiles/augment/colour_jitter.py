"""Colour jitter as one affine map of RGB.

Brightness, contrast, saturation and hue are each linear in the pixel and in the image's mean colour (contrast blends
with the mean grey), so all of them together are out = M · pixel + N · mean, one [3, 6] matrix (M, N), and one pass over
the image. Two differences from doing one after the other on 8-bit images: nothing is clipped in between, and hue turns
about the grey axis (YIQ) instead of in HSV. So all four commute, and the random order of DINOv2 has no effect here.
"""

import math

import numba
import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
LUMA: Matrix = np.array([0.299, 0.587, 0.114])
_GREY: Matrix = np.tile(LUMA, (3, 1))
_YIQ: Matrix = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB: Matrix = np.linalg.inv(_YIQ).astype(np.float64)
IDENTITY: Matrix = np.eye(3, 6)


@numba.njit(cache=True, nogil=True)
def _times(left: Matrix, right: Matrix) -> Matrix:
    out = np.zeros((3, right.shape[1]))
    for i in range(3):
        for j in range(right.shape[1]):
            for k in range(3):
                out[i, j] += left[i, k] * right[k, j]
    return out


@numba.njit(cache=True, nogil=True)
def brightness(factor: float) -> Matrix:
    """Multiply by `factor`: [3, 3]."""
    return np.eye(3) * factor


@numba.njit(cache=True, nogil=True)
def saturation(factor: float) -> Matrix:
    """Blend with the pixel's grey, 0 = grey, 1 = as it is: [3, 3]."""
    return factor * np.eye(3) + (1 - factor) * _GREY


@numba.njit(cache=True, nogil=True)
def hue(turn: float) -> Matrix:
    """Turn hues by `turn` of a full circle (positive: red towards yellow), keeping the luma: [3, 3]."""
    cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    rotation = np.zeros((3, 3))
    rotation[0, 0], rotation[1, 1], rotation[2, 2] = 1, cos, cos
    rotation[1, 2], rotation[2, 1] = sin, -sin
    return _times(_RGB, _times(rotation, _YIQ))


@numba.njit(cache=True, nogil=True)
def after(matrix: Matrix, earlier: Matrix) -> Matrix:
    """The linear map `matrix` [3, 3] after the map `earlier` [3, 6]."""
    return _times(matrix, earlier)


@numba.njit(cache=True, nogil=True)
def contrast_after(factor: float, earlier: Matrix) -> Matrix:
    """Blend with the mean grey of what `earlier` [3, 6] makes of an image, 0 = that grey, 1 = as it is: [3, 6]."""
    grey = _times(_GREY, earlier)
    out = factor * earlier
    out[:, 3:] += (1 - factor) * (grey[:, :3] + grey[:, 3:])
    return out


@numba.njit(cache=True, nogil=True)
def greyscale_after(earlier: Matrix) -> Matrix:
    """The luma in all three channels, after the map `earlier` [3, 6]."""
    return _times(_GREY, earlier)


@numba.njit(cache=True, nogil=True)
def jitter(uniform: Matrix, strength: Matrix) -> Matrix:
    """Colour jitter, [3, 6].

    Args:
        uniform: four numbers in [0, 1): brightness, contrast, saturation, hue.
        strength: float64 [4], of brightness, contrast, saturation (factors in 1 ± it, not below 0) and hue (± turns).
    """
    low = np.maximum(0.0, 1 - strength)
    factor = low + (1 + strength - low) * uniform
    out = contrast_after(factor[1], after(brightness(factor[0]), IDENTITY))
    return after(hue(strength[3] * (2 * uniform[3] - 1)), after(saturation(factor[2]), out))


@numba.njit(cache=True, nogil=True)
def colour_maps(uniform, strength, jittered, grey):  # type: ignore[no-untyped-def]
    """The maps of several views, float64 [V, 3, 6].

    Args:
        uniform: four numbers in [0, 1) for each view, [V, 4].
        strength: of `jitter`.
        jittered: bool [V], which views are jittered.
        grey: bool [V], which are turned grey, after that.
    """
    out = np.zeros((len(uniform), 3, 6))
    for v in range(len(uniform)):
        made = jitter(uniform[v], strength) if jittered[v] else IDENTITY
        out[v] = greyscale_after(made) if grey[v] else made
    return out


def affine(maps: Matrix, means: npt.NDArray[np.floating]) -> Matrix:
    """Maps [n, 3, 6] of images with mean colours `means` [n, 3] as affine maps of their pixels, [n, 3, 4]."""
    return np.concatenate([maps[:, :, :3], maps[:, :, 3:] @ means[:, :, None]], axis=2)
