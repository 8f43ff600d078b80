"""Smooth random fields and periodic textures: the raw material of the demo's tissue."""

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], wavelength: float) -> Floats:
    """A smooth random field: float32 `shape` (height, width), mean about 0, standard deviation about 0.7.

    Args:
        rng: source of randomness.
        shape: height and width, px.
        wavelength: distance of independent values, px.
    """
    rows, columns = (int(np.ceil(side / wavelength)) + 3 for side in shape)
    grid = rng.standard_normal((rows, columns), dtype=np.float32)
    offset = rng.random(2) * wavelength
    scale = 1.0 / wavelength
    to_grid = np.array([[scale, 0, 1 + offset[0] * scale], [0, scale, 1 + offset[1] * scale]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    field = cv2.warpAffine(grid, to_grid, shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(field, np.float32)


def rough_noise(rng: np.random.Generator, shape: tuple[int, int], wavelength: float, octaves: int = 3) -> Floats:
    """Sum of `octaves` smooth fields, each of half the wavelength and half the amplitude of the one before."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        total += smooth_noise(rng, shape, wavelength / 2**octave) / 2**octave
    return total


def periodic_noise(rng: np.random.Generator, side: int, length_x: float, length_y: float) -> Floats:
    """Gaussian noise that repeats without a seam: float32 [side, side], mean 0, standard deviation 1.

    Args:
        rng: source of randomness.
        side: period, px.
        length_x: correlation length along rows, px.
        length_y: correlation length along columns, px.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((side, side), dtype=np.float32))
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    spectrum *= np.exp(-2 * np.pi**2 * ((fx * length_x) ** 2 + (fy * length_y) ** 2))
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(side, side))
    return (field / field.std()).astype(np.float32)


def jittered_lattice(
    rng: np.random.Generator, shape: tuple[int, int], spacing: float, jitter: float
) -> npt.NDArray[np.float32]:
    """Points of a hexagonal lattice, each moved at random: float32 [n, 2] as (x, y), all inside `shape`.

    Args:
        rng: source of randomness.
        shape: height and width of the area.
        spacing: distance of neighbours, in the unit of `shape`.
        jitter: largest move along each axis, as a share of `spacing`.
    """
    height, width = shape
    rows = int(height / (spacing * 0.866)) + 2
    columns = int(width / spacing) + 2
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    x += 0.5 * (y % 2)
    points = np.stack([x * spacing, y * spacing * 0.866], -1).reshape(-1, 2)
    points += rng.uniform(-jitter, jitter, points.shape).astype(np.float32) * spacing
    inside = (points >= 0).all(1) & (points[:, 0] < width) & (points[:, 1] < height)
    return points[inside]
