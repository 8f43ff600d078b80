"""Stain augmentation in haematoxylin-eosin-DAB space [Tellez et al. 2019].

A pixel's optical density is OD = −ln((I + 1) / 256) per channel, its stain amounts are s = OD · M⁻¹ with the
colour deconvolution matrix M of Ruifrok and Johnston. Each amount becomes α·s + β with α ∈ U(1−σ, 1+σ) and
β ∈ U(−σ, σ), one pair per stain and tile, and goes back: OD' = OD · (M⁻¹ diag(α) M) + β · M. So the whole is one
affine map of optical densities, of which there are only 256 per channel: a table, a 3×3 product, an exponential.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Tile = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]

# Rows: optical densities in R, G, B of haematoxylin, eosin and DAB [Ruifrok and Johnston 2001].
RGB_FROM_HED: Matrix = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
HED_FROM_RGB: Matrix = np.linalg.inv(RGB_FROM_HED).astype(np.float64)
DENSITIES: Matrix = -np.log((np.arange(256) + 1) / 256)
_TABLE = np.repeat(DENSITIES.astype(np.float32)[None, :, None], 3, axis=2)


@dataclass(frozen=True)
class StainShift:
    """s → alpha · s + beta for haematoxylin, eosin and DAB; both float64 [3]."""

    alpha: Matrix
    beta: Matrix

    def affine(self) -> tuple[Matrix, Matrix]:
        """The map of optical densities, OD' = OD · A + b: A [3, 3] and b [3]."""
        return HED_FROM_RGB @ np.diag(self.alpha) @ RGB_FROM_HED, self.beta @ RGB_FROM_HED


def draw_shift(rng: np.random.Generator, sigma: float) -> StainShift:
    """One random shift of strength `sigma`: .05 is "light" and .2 is "strong" in the source."""
    return StainShift(rng.uniform(1 - sigma, 1 + sigma, 3), rng.uniform(-sigma, sigma, 3))


def apply_shift(tile: Tile, shift: StainShift) -> Tile:
    """The tile (RGB uint8 [h, w, 3]) with shifted stains, rounded to the nearest level (within 1 of float64)."""
    matrix, offset = shift.affine()
    # The + ln 256 turns exp(−OD') into intensities at once.
    exponent = np.column_stack([-matrix.T, np.log(256) - offset])
    intensities = cv2.exp(cv2.transform(cv2.LUT(tile, _TABLE), exponent))
    out: Tile = cv2.add(intensities, (-1.0, -1.0, -1.0, 0.0), dtype=cv2.CV_8U)  # type: ignore[call-overload]
    return out


def reference_shift(tile: Tile, shift: StainShift) -> Matrix:
    """The same step by step in float64 without rounding, [h, w, 3] within 0 and 255: what tests compare with."""
    stains = -np.log((tile.astype(np.float64) + 1) / 256) @ HED_FROM_RGB
    density = (stains * shift.alpha + shift.beta) @ RGB_FROM_HED
    return np.clip(256 * np.exp(-density) - 1, 0, 255)


def augment(tile: Tile, rng: np.random.Generator, sigma: float) -> Tile:
    """A random stain shift of strength `sigma`; 0 returns the tile as it is."""
    return apply_shift(tile, draw_shift(rng, sigma)) if sigma > 0 else tile
