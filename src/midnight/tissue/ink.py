"""Pen marks on slides, told from stained tissue by the direction of their optical density.

Stains absorb by Beer and Lambert: however much there is of one, the ratios of its optical densities in R, G and B
stay the same, while hue and saturation change with the amount. Haematoxylin, eosin and their mixtures all absorb
green most: R/G between about 0.1 (eosin) and 0.95 (haematoxylin), B/G between 0.3 and 0.7. The inks lie outside:

    green ink   R/G above 1.3, B/G about 1.2: takes red away, which tissue never does more than green
    blue ink    R/G above 1.3, B/G about 0.5
    red ink     R/G below 0.3 and B/G above 0.75: takes blue as much as green; eosin and blood take it less
    dark ink    black, or marks over marks: B/G of 0.75 to 1.05 where all three channels are dark; the darkest
                nuclei stay below 0.68, melanin lies above (it takes blue most)
    on tissue   faint red and blue are drawn towards tissue's ratios, but are darker than stains alone ever are

Faint and blurred margins of a stroke are nearer to tissue's ratios: they count as ink where they touch ink that is
beyond doubt. Specks smaller than a stroke (a folded nucleus, blood cells) never count.
"""

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]

# Optical density of green below which ratios are noise.
DENSE = 0.12
# Density of red above which what takes red and green alike is blue ink: nuclei as dark take green more.
OPAQUE_BLUE = 1.2
# Density of green above which what lets red through is red ink (or a lake of blood): eosin stays below.
OPAQUE_RED = 1.7
# A stroke is at least this wide, µm; tips of markers are 0.3 to 2 mm.
STROKE_UM = 40.0
# Blur of the densities before ratios are taken, µm (standard deviation): single cells don't decide.
BLUR_UM = 10.0
# How far from certain ink its margin may reach, µm.
MARGIN_UM = 240.0

# Optical density up to which something beside ink is its fading edge, and how far that reaches, µm.
FAINT = 0.3
FADE_UM = 120.0


def densities(image: npt.NDArray[np.uint8]) -> Floats:
    """Optical densities −ln((I + 1) / 256) of an RGB uint8 [h, w, 3] image: float32 of the same shape."""
    table = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
    return table[image]


def find_ink(image: npt.NDArray[np.uint8], mpp: float) -> Mask:
    """Where there is ink.

    Args:
        image: RGB uint8 [h, w, 3], a thumbnail.
        mpp: its µm/px.

    Returns:
        bool [h, w].
    """
    density = cv2.GaussianBlur(densities(image), (0, 0), max(BLUR_UM / mpp, 0.5))
    red, green, blue = (np.asarray(density[..., channel], np.float32) for channel in range(3))
    strong, weak = _ink_like(red, green, blue, strict=True), _ink_like(red, green, blue, strict=False)
    seeds = _open(strong, STROKE_UM / mpp)
    near = _dilate(seeds, MARGIN_UM / mpp)
    ink = _dilate(_connected(weak & near, seeds), 1.5 * BLUR_UM / mpp)
    # Where a stroke fades out its ratios mean nothing: what is faint right beside it is taken for its edge.
    return ink | (_dilate(ink, FADE_UM / mpp) & (density.max(axis=2) < FAINT))


def _ink_like(red: Floats, green: Floats, blue: Floats, strict: bool) -> Mask:
    """Whether optical densities in R, G, B are those of an ink; `strict`: beyond doubt."""
    slack = 0.0 if strict else 1.0
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    base = np.maximum(green, DENSE / 2)
    red_ratio, blue_ratio = red / base, blue / base
    cold = red_ratio > 1.3 - 0.15 * slack
    warm = (red_ratio < 0.3 + 0.1 * slack) & (blue_ratio > 0.75 - 0.07 * slack)
    warm |= (red_ratio < 0.23 + 0.1 * slack) & (blue_ratio > 0.7 - 0.02 * slack)
    dark = (least > 0.6 - 0.3 * slack) & (blue_ratio > 0.75 - 0.05 * slack) & (blue_ratio < 1.05)
    opaque = (red > OPAQUE_BLUE - 0.3 * slack) & (red_ratio > 0.86)
    opaque |= (green > OPAQUE_RED - 0.2 * slack) & (red_ratio < 0.3 + 0.1 * slack) & (blue_ratio > 0.62)
    return np.asarray((most > (2 - slack) * DENSE) & (cold | warm | dark | opaque))


def _disc(diameter: float) -> npt.NDArray[np.uint8]:
    side = max(1, round(diameter)) | 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _open(mask: Mask, diameter: float) -> Mask:
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, _disc(diameter)).astype(bool)


def _dilate(mask: Mask, radius: float) -> Mask:
    return cv2.dilate(mask.astype(np.uint8), _disc(2 * radius)).astype(bool)


def _connected(candidates: Mask, seeds: Mask) -> Mask:
    """The connected pieces of candidates and seeds that hold a seed."""
    _, labels = cv2.connectedComponents((candidates | seeds).astype(np.uint8), connectivity=8)
    kept = np.zeros(labels.max() + 1, bool)
    kept[labels[seeds]] = True
    kept[0] = False
    return np.asarray(kept[labels])
