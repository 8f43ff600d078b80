"""Slides as Aperio writes them: a pyramidal TIFF of JPEG tiles with a thumbnail, that OpenSlide opens as `aperio`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

from midnight.atomic import atomic_path
from midnight.demo.noise import Bytes

QUALITY = 80
DOWNSAMPLE = 4
SMALLEST = 512
"""A level is added while its longer side stays above this, px."""


@dataclass(frozen=True)
class Scanner:
    """What the header says about the scan.

    Attributes:
        mpp: µm per pixel of the baseline level.
        magnification: objective power (40 at 0.25 µm/px, 20 at 0.5).
        tile: side of the JPEG tiles, px.
        serial: scanner's name in the header.
    """

    mpp: float
    magnification: int
    tile: int
    serial: str


def describe(scanner: Scanner, width: int, height: int) -> str:
    """Aperio's image description of the baseline level."""
    size = f"{width}x{height} [0,0 {width}x{height}] ({scanner.tile}x{scanner.tile}) JPEG/RGB Q={QUALITY}"
    keys = f"AppMag = {scanner.magnification}|ScanScope ID = {scanner.serial}|MPP = {scanner.mpp:.4f}"
    return f"Aperio Image Library v12.0.15 \r\n{size}|{keys}|Title = midnight demo, generated"


def write_svs(path: Path, image: Bytes, scanner: Scanner) -> None:
    """Write an image as an Aperio-style SVS, atomically.

    Order of directories as on an Aperio scanner: baseline (tiled), thumbnail (striped), then the reduced levels
    (tiled, each `DOWNSAMPLE` times smaller).

    Args:
        path: file to write, `.svs`.
        image: uint8 [h, w, 3], RGB.
        scanner: header's facts.
    """
    height, width = image.shape[:2]
    options: dict[str, Any] = {"photometric": "rgb", "subsampling": (2, 2), "compression": "jpeg", "metadata": None}
    options |= {"compressionargs": {"level": QUALITY}, "software": False, "maxworkers": 1}
    tile = (scanner.tile, scanner.tile)
    text = describe(scanner, width, height)
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary) as writer:
        writer.write(image, tile=tile, description=text, **options)
        levels = _levels(image)
        thumbnail = _shrink(levels[-1], 768 / max(levels[-1].shape[:2]))
        note = f"Aperio Image Library v12.0.15 \r\n{width}x{height} -> {thumbnail.shape[1]}x{thumbnail.shape[0]} - "
        writer.write(thumbnail, rowsperstrip=16, description=note + text.split("|", 1)[1], **options)
        for level in levels[1:]:
            note = f"{text.split(' [')[0]} [0,0 {width}x{height}] -> {level.shape[1]}x{level.shape[0]} JPEG/RGB"
            writer.write(level, tile=tile, description=note, **options)


def _levels(image: Bytes) -> list[Bytes]:
    levels = [image]
    while max(levels[-1].shape[:2]) // DOWNSAMPLE >= SMALLEST // 2:
        levels.append(_shrink(levels[-1], 1 / DOWNSAMPLE))
    return levels


def _shrink(image: Bytes, factor: float) -> Bytes:
    factor = min(factor, 1.0)
    size = (max(int(image.shape[1] * factor), 1), max(int(image.shape[0] * factor), 1))
    return np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
