"""Stain augmentation in haematoxylin-eosin-DAB space [Tellez et al. 2019].

A pixel's optical density is OD = −ln((I + 1) / 256) per channel, its stain amounts are s = OD · M⁻¹ with the
colour deconvolution matrix M of Ruifrok and Johnston. Each amount becomes α·s + β with α ∈ U(1−σ, 1+σ) and
β ∈ U(−σ, σ), one pair per stain and tile, and goes back: OD' = OD · (M⁻¹ diag(α) M) + β · M. So the whole is one
affine map of optical densities, of which there are only 256 per channel: OD' is a sum of three table entries. The
three sums of a pixel (R', G', B') are made at once, as 21-bit fields of one 64-bit number, and a last table gives the
intensity of each: three additions and six look-ups per pixel.
"""

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from midnight.errors import MidnightError

Tile = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]

# Rows: optical densities in R, G, B of haematoxylin, eosin and DAB [Ruifrok and Johnston 2001].
RGB_FROM_HED: Matrix = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
HED_FROM_RGB: Matrix = np.linalg.inv(RGB_FROM_HED).astype(np.float64)
DENSITIES: Matrix = -np.log((np.arange(256) + 1) / 256)
# Densities are held as (density + 32) · 4096: a step is 1/16 of a level at intensity 255 and less below.
_RANGE, _STEPS = 32, 4096
_FIELD, _MASK = 21, (1 << 21) - 1
_LEVELS = np.rint(
    np.clip(256 * np.exp(_RANGE - np.arange(2 * _RANGE * _STEPS) / _STEPS) - 1, 0, 255)
).astype(np.uint8)  # fmt: skip


@dataclass(frozen=True)
class StainShift:
    """s → alpha · s + beta for haematoxylin, eosin and DAB; both float64 [3]."""

    alpha: Matrix
    beta: Matrix

    def affine(self) -> tuple[Matrix, Matrix]:
        """The map of optical densities, OD' = OD · A + b: A [3, 3] and b [3]."""
        return (HED_FROM_RGB * self.alpha) @ RGB_FROM_HED, self.beta @ RGB_FROM_HED


def draw_shift(rng: np.random.Generator, sigma: float) -> StainShift:
    """One random shift of strength `sigma`: .05 is "light" and .2 is "strong" in the source."""
    return StainShift(rng.uniform(1 - sigma, 1 + sigma, 3), rng.uniform(-sigma, sigma, 3))


@numba.njit(cache=True, nogil=True)
def _density_tables(matrix: Matrix, offset: Matrix, densities: Matrix) -> npt.NDArray[np.int64]:
    """What each level of each channel adds to the three packed densities: int64 [3, 256]. Empty if out of range."""
    tables = np.zeros((3, 256), np.int64)
    for out in range(3):
        low = high = offset[out]
        for channel in range(3):
            far = densities[0] * matrix[channel, out]
            low, high = low + min(0.0, far), high + max(0.0, far)
            for level in range(256):
                steps = densities[level] * matrix[channel, out] + (offset[out] + _RANGE if channel == 0 else 0.0)
                tables[channel, level] += np.int64(np.rint(steps * _STEPS)) << (_FIELD * out)
        if low <= 0.01 - _RANGE or high >= _RANGE - 0.01:
            return tables[:0]
    return tables


@numba.njit(cache=True, nogil=True)
def _look_up(pixels, tables, levels, out):  # type: ignore[no-untyped-def]
    for i in range(np.uint64(len(pixels))):
        packed = np.uint64(tables[0, pixels[i, 0]] + tables[1, pixels[i, 1]] + tables[2, pixels[i, 2]])
        out[i, 0] = levels[packed & np.uint64(_MASK)]
        out[i, 1] = levels[(packed >> np.uint64(_FIELD)) & np.uint64(_MASK)]
        out[i, 2] = levels[packed >> np.uint64(2 * _FIELD)]


def apply_shift(tile: Tile, shift: StainShift) -> Tile:
    """The tile (RGB uint8 [h, w, 3]) with shifted stains, rounded to the nearest level (within 1 of float64).

    Raises:
        MidnightError: the shift could make a density larger than 32, which no σ below 0.5 does.
    """
    tables = _density_tables(*shift.affine(), DENSITIES)
    if not len(tables):
        raise MidnightError(f"a stain shift of {shift} is too strong; lower tiles.hed_sigma (0.05 light, 0.2 strong)")
    out = np.empty_like(tile, order="C")
    _look_up(tile.reshape(-1, 3), tables, _LEVELS, out.reshape(-1, 3))
    return out


def reference_shift(tile: Tile, shift: StainShift) -> Matrix:
    """The same step by step in float64 without rounding, [h, w, 3] within 0 and 255: what tests compare with."""
    stains = -np.log((tile.astype(np.float64) + 1) / 256) @ HED_FROM_RGB
    density = (stains * shift.alpha + shift.beta) @ RGB_FROM_HED
    return np.clip(256 * np.exp(-density) - 1, 0, 255)


def augment(tile: Tile, rng: np.random.Generator, sigma: float) -> Tile:
    """A random stain shift of strength `sigma`; 0 returns the tile as it is."""
    return apply_shift(tile, draw_shift(rng, sigma)) if sigma > 0 else tile
