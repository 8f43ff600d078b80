"""A stand-in for BACH: 400 fields of four architectures, in the folders that eva's `BACH` reads."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from midnight.atomic import atomic_path
from midnight.demo.bench_common import draw_planes, generator, own_look
from midnight.demo.classes import TissueClass
from midnight.demo.glands import GlandStyle
from midnight.demo.layout import draw_disks, draw_nests
from midnight.demo.noise import Bytes

MPP = 0.5
SIDE = 320
PER_CLASS = 100
GRID = 5
"""Fields are cut from canvases of GRID × GRID: 25 neighbouring numbers show one piece of tissue."""

FOLDERS = {"Benign": "b", "InSitu": "is", "Invasive": "iv", "Normal": "n"}
"""BACH's class folders and the prefixes of its file names."""

BENIGN = GlandStyle(spacing=96.0, radius=22.0, lumen=0.25, wobble=0.14, pitch=6.4)


def write_bach(folder: Path, seed: int, scale: float) -> None:
    """Write `ICIAR2018_BACH_Challenge/Photos/{Benign,InSitu,Invasive,Normal}/*.tif`, 100 fields each.

    All 400 are written whatever the scale, since eva's split is a list of indices into 400. What the classes show:
    Normal: large round glands with open lumens; Benign: small irregular glands far apart in fibrous stroma; InSitu:
    rounded ducts filled with tumour cells; Invasive: irregular cords of tumour cells with lymphocytes between.
    Every field has a stain of its own.

    Args:
        folder: BACH's root.
        seed: of everything.
        scale: below 1 the fields get smaller (320 px at 1; 0.5 µm/px always).
    """
    side = max(96, int(SIDE * min(1.0, scale**0.5)) // 16 * 16)
    for number, (name, prefix) in enumerate(FOLDERS.items()):
        for index, image in enumerate(_fields(name, seed, number, side)):
            path = folder / "ICIAR2018_BACH_Challenge" / "Photos" / name / f"{prefix}{index + 1:03d}.tif"
            write_tif(path, image)


def write_tif(path: Path, image: Bytes) -> None:
    """Write uint8 [h, w, 3] as a JPEG-compressed TIFF, atomically and without dates."""
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            image,
            photometric="rgb",
            compression="jpeg",
            compressionargs={"level": 92},
            subsampling=(1, 1),
            metadata=None,
            software=False,
            maxworkers=1,
        )


def _fields(name: str, seed: int, number: int, side: int) -> Iterator[Bytes]:
    for canvas in range(PER_CLASS // GRID**2):
        rng = generator(seed, 1, number, canvas)
        extent = int(GRID * side * MPP)
        classes, style = draw_architecture(rng, name, (extent, extent))
        _, planes = draw_planes(rng, classes, MPP, style)
        for row in range(GRID):
            for column in range(GRID):
                window = planes[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
                yield own_look(rng, np.ascontiguousarray(window))


def draw_architecture(rng: np.random.Generator, name: str, shape: tuple[int, int]) -> tuple[Bytes, GlandStyle | None]:
    """The class map (uint8, 1 µm/px) and the gland style of one of BACH's classes."""
    if name in ("Normal", "Benign"):
        return np.full(shape, TissueClass.GLAND, np.uint8), BENIGN if name == "Benign" else None
    classes = np.full(shape, TissueClass.STROMA, np.uint8)
    if name == "InSitu":
        classes[draw_disks(rng, shape, 112, 45)] = TissueClass.TUMOUR
        return classes, None
    classes[draw_nests(rng, shape, 70, 0.18)] = TissueClass.LYMPHOCYTES
    classes[draw_nests(rng, shape, 50, 0.42)] = TissueClass.TUMOUR
    return classes, None
