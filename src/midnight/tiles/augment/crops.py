"""The multi-crop views of DINOv2 on 8-bit tiles: 2 global and n local crops, each with its own augmentation.

Everything stays uint8; turning into floats and normalising is left to where the batch is, mostly a GPU.
"""

import cv2
import numpy as np
import numpy.typing as npt

from midnight.config.recipe import Crops
from midnight.tiles.augment import colour_jitter
from midnight.tiles.augment.draws import Draws, draw_views
from midnight.tiles.augment.resample import Views, mean_colours, render

Image = npt.NDArray[np.uint8]


def photometric(images: Image, draws: Draws, views: slice) -> None:
    """Colour jitter, greyscale and solarize, in place.

    Args:
        images: uint8 [V, size, size, 3].
        draws: of all views.
        views: which of them `images` are.
    """
    coloured = draws.coloured[views]
    if coloured.any():
        maps = colour_jitter.affine(draws.colour[views], mean_colours(images, coloured))
        for v in np.flatnonzero(coloured):
            cv2.transform(images[v], maps[v], dst=images[v])
    for v in np.flatnonzero(draws.solarized[views]):
        cv2.min(images[v], cv2.bitwise_not(images[v]), dst=images[v])  # x from 128 on becomes 255 - x


def apply_views(tile: Image, draws: Draws, whole: Image, local: Image) -> None:
    """Write the drawn views of a tile: `multi_crop_into` without the randomness."""
    tile = np.ascontiguousarray(tile)
    kinds = [(views, out) for views, out in ((slice(len(whole)), whole), (slice(len(whole), None), local)) if len(out)]
    render(tile, [Views(draws.boxes[v], draws.turned[v], draws.sigma[v], out) for v, out in kinds])
    if draws.coloured.any() or draws.solarized.any():
        for views, out in kinds:
            photometric(out, draws, views)


def multi_crop_into(tile: Image, crops: Crops, rng: np.random.Generator, whole: Image, local: Image) -> None:
    """All views of one tile, written in place.

    Args:
        tile: RGB uint8 [h, w, 3].
        crops: sizes, scales, probabilities.
        rng: the only source of randomness.
        whole: the global crops, uint8 [2, G, G, 3], contiguous.
        local: the local crops, uint8 [L, S, S, 3], contiguous.
    """
    apply_views(tile, draw_views(rng, crops, tile.shape[0], tile.shape[1]), whole, local)
