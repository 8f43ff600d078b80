"""A stand-in for PatchCamelyon: 96 px patches at 1 µm/px, labelled by tumour in their central 32 px."""

from pathlib import Path

import h5py
import numpy as np

from midnight.atomic import atomic_path
from midnight.demo.bench_common import draw_planes, generator, own_look
from midnight.demo.classes import TissueClass
from midnight.demo.layout import draw_regions
from midnight.demo.noise import Bytes

MPP = 1.0
SIDE = 96
CENTRE = 32
CANVAS_UM = 800
PER_CANVAS = 50
COUNTS = {"train": 400, "valid": 200, "test": 400}
MIN_TUMOUR = 0.3
"""Least share of tumour in the centre of a positive patch; negative patches have none there."""

MIX = {
    TissueClass.FAT: 0.04,
    TissueClass.STROMA: 0.2,
    TissueClass.GLAND: 0.16,
    TissueClass.LYMPHOCYTES: 0.2,
    TissueClass.TUMOUR: 0.4,
}


def write_patch_camelyon(folder: Path, seed: int, scale: float) -> None:
    """Write `camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5` as eva's `PatchCamelyon` reads them.

    Keys and forms: `x` uint8 [n, 96, 96, 3], `y` uint8 [n, 1, 1, 1]; half of each split is tumour. Splits come from
    different pieces of tissue; every patch has a stain of its own.

    Args:
        folder: PatchCamelyon's root.
        seed: of everything.
        scale: multiplies the counts (400, 200, 400).
    """
    for number, (split, count) in enumerate(COUNTS.items()):
        n = max(2 * int(count * scale / 2), 40)
        images, labels = draw_split(seed, number, n)
        for key, values in (("x", images), ("y", labels.reshape(-1, 1, 1, 1))):
            path = folder / f"camelyonpatch_level_2_split_{split}_{key}.h5"
            with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
                file.create_dataset(key, data=values, compression="gzip", compression_opts=1)


def draw_split(seed: int, number: int, n: int) -> tuple[Bytes, Bytes]:
    """Patches of one split in random order: uint8 [n, 96, 96, 3] and labels uint8 [n], half of them 1."""
    images: list[Bytes] = []
    labels: list[int] = []
    canvas = 0
    while len(images) < n:
        rng = generator(seed, 2, number, canvas)
        canvas += 1
        classes = draw_regions(rng, (CANVAS_UM, CANVAS_UM), MIX, 170)
        _, planes = draw_planes(rng, classes, MPP)
        for label in (0, 1):
            wanted = min(PER_CANVAS // 2, n // 2 - labels.count(label))
            for y, x in draw_places(rng, classes, label, wanted):
                images.append(own_look(rng, np.ascontiguousarray(planes[:, y : y + SIDE, x : x + SIDE])))
                labels.append(label)
    order = generator(seed, 3, number).permutation(n)
    return np.stack(images)[order], np.array(labels, np.uint8)[order]


def draw_places(rng: np.random.Generator, classes: Bytes, label: int, n: int) -> np.ndarray:
    """Up to `n` upper left corners (y, x) of patches with this label: int [m, 2].

    A patch is positive if at least `MIN_TUMOUR` of its central 32 px are tumour, negative if none is; patches whose
    centre is mostly fat are left out.
    """
    corners = rng.integers(0, CANVAS_UM - SIDE, (40 * max(n, 1), 2))
    margin = (SIDE - CENTRE) // 2
    chosen: list[tuple[int, int]] = []
    for y, x in corners:
        centre = classes[y + margin : y + margin + CENTRE, x + margin : x + margin + CENTRE]
        tumour = (centre == TissueClass.TUMOUR).mean()
        fits = tumour >= MIN_TUMOUR if label else tumour == 0 and (centre == TissueClass.FAT).mean() < 0.5
        if fits and len(chosen) < n:
            chosen.append((int(y), int(x)))
    return np.array(chosen, np.int64).reshape(-1, 2)
