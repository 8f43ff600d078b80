"""Camelyon16: slides of the training and test part and the reference of the test part. Full counts of tiny slides."""

import os
from pathlib import Path

import numpy as np

from tests.evaluate.standins.pixels import draw
from tests.evaluate.standins.slides import WHITE, write_slide

VAL_NORMAL, VAL_TUMOR = 32, 22
NORMAL, TUMOR, TEST = 159, 111, 129
MPP, SIDE = 0.25, 224


def write_camelyon16(root: Path) -> dict[str, dict[int, int]]:
    """Write the 399 slides (normal: one field of tissue; tumor: two, one with tumour) and `testing/reference.csv`."""
    glass = np.broadcast_to(WHITE, (SIDE, SIDE, 3))
    (root / "testing/images").mkdir(parents=True)
    sources = [root / "training/normal/normal_001.tif", root / "training/tumor/tumor_001.tif"]
    write_slide(sources[0], [draw(0, 2, 0, SIDE), glass], MPP)
    write_slide(sources[1], [draw(0, 2, 0, SIDE), glass, draw(1, 2, 0, SIDE)], MPP)
    for kind, n in (("normal", NORMAL), ("tumor", TUMOR)):
        for index in range(2, n + 1):
            os.link(sources[kind == "tumor"], root / "training" / kind / f"{kind}_{index:03d}.tif")
    labels = [int(index % 3 == 0) for index in range(TEST)]
    rows = []
    for index, label in enumerate(labels, start=1):
        os.link(sources[label], root / "testing/images" / f"test_{index:03d}.tif")
        rows.append(f"test_{index:03d},{('Normal,None,None', 'Tumor,IDC,Macro')[label]}\n")
    (root / "testing/reference.csv").write_text("".join(rows))
    train = {0: NORMAL - VAL_NORMAL, 1: 2 * (TUMOR - VAL_TUMOR)}
    return {
        "train": train,
        "val": {0: VAL_NORMAL, 1: 2 * VAL_TUMOR},
        "test": {0: labels.count(0), 1: 2 * labels.count(1)},
    }
