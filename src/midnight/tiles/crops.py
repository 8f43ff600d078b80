"""The multi-crop views of DINOv2 on 8-bit tiles: 2 global and n local crops, each with its own augmentation.

Everything stays uint8; turning into floats and normalising is left to where the batch is, mostly a GPU.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from midnight.config.recipe import Crops
from midnight.tiles import colour

Image = npt.NDArray[np.uint8]

RATIO = (3 / 4, 4 / 3)
BLUR_SIGMA = (0.1, 2.0)
BLUR_KERNEL = (9, 9)
_SOLARIZE = np.where(np.arange(256) >= 128, 255 - np.arange(256), np.arange(256)).astype(np.uint8)
_GREYSCALE = np.column_stack([np.tile(colour.LUMA, (3, 1)), np.zeros(3)])


@dataclass(frozen=True)
class View:
    """How one kind of crop is made: side in px, range of the area's share, probabilities of blur and solarize."""

    size: int
    scale: tuple[float, float]
    blur: float
    solarize: float


def views(crops: Crops) -> tuple[list[View], list[View]]:
    """The global and the local views; DINOv2 blurs the first global always and solarizes only the second."""
    first, second, local = crops.blur_p
    return (
        [
            View(crops.global_size, crops.global_scale, first, 0.0),
            View(crops.global_size, crops.global_scale, second, crops.solarize_p),
        ],
        [View(crops.local_size, crops.local_scale, local, 0.0)] * crops.n_local,
    )


def draw_box(
    rng: np.random.Generator, height: int, width: int, scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    """A random box (top, left, height, width) in px with an area share in `scale` and a side ratio in 3/4–4/3.

    Ten attempts to fit inside, then the largest central box with an allowed ratio.
    """
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def resized_crop(tile: Image, box: tuple[int, int, int, int], size: int) -> Image:
    """The box of the tile as uint8 [size, size, 3]: averaged where it shrinks, cubic where it grows."""
    top, left, height, width = box
    method = cv2.INTER_AREA if height * width >= size * size else cv2.INTER_CUBIC
    out: Image = cv2.resize(tile[top : top + height, left : left + width], (size, size), interpolation=method)  # type: ignore[assignment]
    return out


def orient(image: Image, rng: np.random.Generator, flips: bool, rotations: bool) -> Image:
    """Mirrored along either axis with probability ½ each, turned by a random multiple of 90°."""
    horizontal, vertical, quarter = rng.integers(2), rng.integers(2), int(rng.integers(4))
    if flips and horizontal:
        image = image[:, ::-1]
    if flips and vertical:
        image = image[::-1]
    return np.rot90(image, quarter) if rotations else image


def photometric(image: Image, view: View, crops: Crops, rng: np.random.Generator) -> Image:
    """Colour jitter, greyscale, blur and solarize, each with its probability."""
    jitter, grey, blur, solarize = rng.random(4)
    if jitter < crops.jitter_p:
        image = colour.apply(image, colour.draw_jitter(rng, crops.jitter, np.array(cv2.mean(image)[:3])))
    if grey < crops.grayscale_p:
        image = colour.apply(image, _GREYSCALE)
    if blur < view.blur:
        image = cv2.GaussianBlur(image, BLUR_KERNEL, rng.uniform(*BLUR_SIGMA), borderType=cv2.BORDER_REFLECT_101)  # type: ignore[assignment]
    if solarize < view.solarize:
        image = cv2.LUT(image, _SOLARIZE)  # type: ignore[assignment]
    return image


def one_crop(tile: Image, view: View, crops: Crops, rng: np.random.Generator) -> Image:
    """One augmented crop, uint8 [3, size, size]."""
    box = draw_box(rng, tile.shape[0], tile.shape[1], view.scale)
    image = photometric(resized_crop(tile, box, view.size), view, crops, rng)
    return np.ascontiguousarray(orient(image, rng, crops.flips, crops.rotations).transpose(2, 0, 1))


def multi_crop(tile: Image, crops: Crops, rng: np.random.Generator) -> tuple[Image, Image]:
    """All views of one tile.

    Args:
        tile: RGB uint8 [h, w, 3].
        crops: sizes, scales, probabilities.
        rng: the only source of randomness.

    Returns:
        Global crops uint8 [2, 3, G, G] and local crops uint8 [L, 3, S, S].
    """
    global_views, local_views = views(crops)
    whole = np.stack([one_crop(tile, view, crops, rng) for view in global_views])
    local = np.empty((len(local_views), 3, crops.local_size, crops.local_size), np.uint8)
    for number, view in enumerate(local_views):
        local[number] = one_crop(tile, view, crops, rng)
    return whole, local
