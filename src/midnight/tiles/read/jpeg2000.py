"""JPEG 2000 tiles of Aperio slides (30 % of TCGA's), decoded straight from the TIFF.

**Decoder.** imagecodecs, with its own build of OpenJPEG: of those at hand the fastest, and the one that gives
OpenSlide's pixels to the bit. Real slide, 256 px tiles of 12 kB, one thread, ms per tile: imagecodecs 3.2, OpenCV 3.3,
pylibjpeg-openjpeg 3.4, Pillow 4.2, glymur 4.3 (all but the first are off by up to 1 level), OpenSlide 5.0. For windows
at random places, which touch four (nine) tiles, the gain is smaller, since decoding the coefficients is nearly all of
it: 1.17 times OpenSlide's speed at 256 px (13.7 against 16.0 ms), 1.26 at 512 px (benchmarks/decoders.py).

**Whole tiles.** OpenJPEG can decode a part of a tile, but wavelet bands are coded in blocks of 64 px and the filters
reach over them: a quarter of a 256 px tile takes as long as all of it (4.1 ms against 3.8), a corner of 64 px 3.0.

**Full resolution.** Leaving out the finest bands (2.5 ms at half, 1.1 at a quarter, against 3.8) is not used: what is
left is centred on the even pixels, not between two, so the picture moves by 0.5 (1.5) level pixels. It differs from
the area average by 5.5 (11.4) levels in the mean over a real slide, 2.1 (2.3) with the move undone, though it is as
sharp (gradient variance 1.04 (1.05) times the area average's; dropping pixels gives 1.32 (1.73)). A filter of four
fitted taps moves half-size pictures back: 1.6 levels in the mean and 27 at most remain, gradient variance 0.95, and
512 px windows take 28.5 ms against OpenSlide's 47. Too far from the reference for that.

Damage that leaves the codestream's structure whole goes unnoticed, as in OpenSlide: the format has no checksum.
"""

import struct

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt

from midnight.tissue.resolution import SlideError

YCBCR = 33003
"""TIFF compression: a raw codestream of Y, Cb, Cr; Aperio halves the chroma's width."""
RGB = 33005
"""TIFF compression: a raw codestream of R, G, B."""

_START = b"\xff\x4f\xff\x51"
_FULL = [7, 1, 1] * 3
_HALVED = [7, 1, 1, 7, 2, 1, 7, 2, 1]
_SIZE = struct.Struct(">8x8IH9B")


def decode(data: bytes, compression: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """One tile.

    Args:
        data: the tile's bytes, a raw JPEG 2000 codestream of 3 components with 8 bits.
        compression: `YCBCR` (33003) or `RGB` (33005).
        width: the tile's width by the TIFF, px.
        height: its height, px.

    Returns:
        RGB uint8 [height, width, 3], equal to OpenSlide's; within 1 level of it where `compression` is `YCBCR`.

    Raises:
        SlideError: damaged or cut short, or not what the arguments say.
    """
    if compression not in (YCBCR, RGB):
        raise SlideError(f"JPEG 2000 tile: unknown TIFF compression {compression}")
    subsampled = _check(data, width, height)
    if subsampled and (compression == RGB or width % 2):
        raise SlideError("JPEG 2000 tile: components of fewer pixels, in RGB or in an odd width")
    try:
        pixels = imagecodecs.jpeg2k_decode(data, numthreads=1)
    except imagecodecs.Jpeg2kError as error:
        raise SlideError(f"JPEG 2000 tile: damaged ({error})") from error
    if pixels.shape != (height, width, 3) or pixels.dtype != np.uint8:
        raise SlideError(f"JPEG 2000 tile: decoded to {pixels.dtype} {pixels.shape}, not {width} × {height} px")
    if compression == YCBCR and not subsampled:  # imagecodecs turns subsampled colours into RGB by itself, only those
        return np.asarray(cv2.cvtColor(pixels[..., [0, 2, 1]], cv2.COLOR_YCrCb2RGB), dtype=np.uint8)
    return np.asarray(pixels)


def _check(data: bytes, width: int, height: int) -> bool:
    """Whether chroma is subsampled. The header is checked first: a wrong size there would take all memory."""
    if not data.startswith(_START) or len(data) < _SIZE.size:
        raise SlideError("JPEG 2000 tile: not a codestream")
    across, down, left, top, _, _, _, _, count, *components = _SIZE.unpack_from(data)
    if (across, down, left, top) != (width, height, 0, 0):
        raise SlideError(f"JPEG 2000 tile: {across - left} × {down - top} px, not {width} × {height} px")
    if count != 3 or components not in (_FULL, _HALVED):
        raise SlideError("JPEG 2000 tile: not 3 components of 8 bits, whole or with chroma of half the width")
    return components == _HALVED
