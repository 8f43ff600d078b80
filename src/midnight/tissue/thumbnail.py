"""Thumbnails at a given resolution, read in strips so that memory stays small however large the slide."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import openslide

from midnight.tissue.openslides import read_rgb
from midnight.tissue.resolution import nearest_finer

# Pixels of one read: 4 Mpx, 16 MB as RGBA.
READ_PIXELS = 1 << 22


@dataclass(frozen=True)
class Thumbnail:
    """RGB uint8 [h, w, 3] of a whole slide at `mpp` µm/px (as exact as whole pixels allow)."""

    image: npt.NDArray[np.uint8]
    mpp: float


def read_thumbnail(slide: openslide.OpenSlide, slide_mpp: float, mpp: float) -> Thumbnail:
    """The slide at about `mpp` µm/px, area-averaged from the nearest finer level.

    Args:
        slide: an open slide.
        slide_mpp: its µm per level-0 px.
        mpp: the thumbnail's; never finer than the slide's own.

    Raises:
        SlideError: a part of the slide can't be read.
    """
    width, height = slide.dimensions
    scale = max(1.0, mpp / slide_mpp)
    size = max(1, round(width / scale)), max(1, round(height / scale))
    level = nearest_finer([slide_mpp * downsample for downsample in slide.level_downsamples], mpp)
    out = np.empty((size[1], size[0], 3), np.uint8)
    for first, last in _strips(slide.level_dimensions[level], size[1]):
        out[first:last] = _read_strip(slide, level, size, first, last)
    return Thumbnail(out, slide_mpp * width / size[0])


def _strips(level_size: tuple[int, int], height: int) -> list[tuple[int, int]]:
    """Ranges of thumbnail rows whose level pixels fit in one read (at least one row)."""
    width, level_height = level_size
    rows = max(1, int(READ_PIXELS / max(1, width) * height / level_height))
    return [(first, min(first + rows, height)) for first in range(0, height, rows)]


def _read_strip(
    slide: openslide.OpenSlide, level: int, size: tuple[int, int], first: int, last: int
) -> npt.NDArray[np.uint8]:
    """Thumbnail rows first…last, uint8 [last - first, size[0], 3]."""
    width, height = slide.level_dimensions[level]
    downsample = slide.level_downsamples[level]
    top, bottom = math.floor(first * height / size[1]), math.ceil(last * height / size[1])
    columns = max(1, READ_PIXELS // max(1, bottom - top))
    parts = []
    for left in range(0, width, columns):
        extent = (min(columns, width - left), bottom - top)
        parts.append(read_rgb(slide, (round(left * downsample), round(top * downsample)), level, extent))
    strip = np.concatenate(parts, axis=1)
    return np.asarray(cv2.resize(strip, (size[0], last - first), interpolation=cv2.INTER_AREA), np.uint8)
