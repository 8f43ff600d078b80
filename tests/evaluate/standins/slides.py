"""Tiny pyramids that OpenSlide reads as generic TIFF: a row of fields, some of them white glass."""

from pathlib import Path

import numpy as np
import tifffile

WHITE = np.array([243, 243, 243], np.uint8)


def write_slide(path: Path, fields: list[np.ndarray], mpp: float) -> None:
    """Write fields (uint8 [h, w, 3], all of one size) side by side, with a level of half the size.

    Args:
        path: file to write, `.tif` or `.tiff`.
        fields: from left to right.
        mpp: µm per pixel of the first level, in the file's resolution tags.
    """
    image = np.concatenate(fields, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as writer:
        for level in range(2):
            resolution = (1e4 / mpp / 2**level,) * 2
            writer.write(
                np.ascontiguousarray(image[:: 2**level, :: 2**level]),
                tile=(112, 112),
                photometric="rgb",
                compression="jpeg",
                resolution=resolution,
                resolutionunit="CENTIMETER",
                subfiletype=int(level > 0),
                metadata=None,
            )
