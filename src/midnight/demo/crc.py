"""A stand-in for CRC-100K: fields of 224 px at 0.5 µm/px, labelled by the tissue that most of the field shows."""

from pathlib import Path

import numpy as np

from midnight.demo.bach import write_tif
from midnight.demo.bench_common import draw_planes, generator, own_look
from midnight.demo.classes import TissueClass
from midnight.demo.layout import draw_regions
from midnight.demo.noise import Bytes

MPP = 0.5
SIDE = 224
PER_CLASS = 100
GRID = 6
REGION_UM = 60.0
FOLDERS = {
    "LYM": TissueClass.LYMPHOCYTES,
    "NORM": TissueClass.GLAND,
    "STR": TissueClass.STROMA,
    "TUM": TissueClass.TUMOUR,
}
"""CRC-100K's names of the tissues that the generator has; a field holds all of them, one more than the others."""

MIN_SHARE = 0.4
MAIN_SHARE = 0.6


def write_crc(folder: Path, seed: int, scale: float) -> None:
    """Write `{LYM,NORM,STR,TUM}/*.tif`: a folder of class folders, every field with a stain of its own.

    Args:
        folder: where to.
        seed: of everything.
        scale: multiplies the counts (100 per class).
    """
    wanted = max(8, int(PER_CLASS * scale))
    for number, (name, main) in enumerate(FOLDERS.items()):
        images: list[Bytes] = []
        canvas = 0
        while len(images) < wanted:
            images += draw_fields(generator(seed, 4, number, canvas), main)
            canvas += 1
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images[:wanted]):
            write_tif(folder / name / f"{name}-{index + 1:03d}.tif", image)


def draw_fields(rng: np.random.Generator, main: TissueClass) -> list[Bytes]:
    """Fields uint8 [224, 224, 3] of one piece of tissue in which `main` has the largest share, at least 40 %."""
    extent = int(GRID * SIDE * MPP)
    rest = (1 - MAIN_SHARE) / (len(FOLDERS) - 1)
    mix = {tissue: MAIN_SHARE if tissue == main else rest for tissue in FOLDERS.values()}
    classes = draw_regions(rng, (extent, extent), mix, REGION_UM)
    _, planes = draw_planes(rng, classes, MPP)
    fields = []
    for row in range(GRID):
        for column in range(GRID):
            place = np.s_[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
            labels = classes[tuple(slice(int(part.start * MPP), int(part.stop * MPP)) for part in place)]
            shares = {tissue: float((labels == tissue).mean()) for tissue in FOLDERS.values()}
            image = own_look(rng, np.ascontiguousarray(planes[:, place[0], place[1]]))
            if shares[main] == max(shares.values()) >= MIN_SHARE:
                fields.append(image)
    return fields
