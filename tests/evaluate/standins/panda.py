"""PANDA: biopsies as pyramidal TIFF and the published table of their grades with noisy labels. Fewer slides.

Of the slides of each grade that the table doesn't call noisy, eva's small version draws a tenth for training and a
twentieth each for validation and test.
"""

import os
from pathlib import Path

import numpy as np

from tests.evaluate.standins.pixels import draw
from tests.evaluate.standins.slides import WHITE, write_slide

GRADES, PER_GRADE, NOISY = 6, 40, 2
MPP, SIDE = 0.486, 230
HEADER = "image_id,data_provider,isup_grade,gleason_score,noise_ratio_10\n"


def write_panda(root: Path) -> dict[str, dict[int, int]]:
    """Write the slides (glass and two fields of tissue) and `train_with_noisy_labels.csv`."""
    glass = np.broadcast_to(WHITE, (SIDE, SIDE, 3))
    rows = []
    for grade in range(GRADES):
        source = root / "train_images" / f"{grade:02x}{0:030x}.tiff"
        write_slide(source, [glass, draw(grade, GRADES, 0, SIDE), draw(grade, GRADES, 1, SIDE)], MPP)
        for index in range(PER_GRADE + NOISY):
            name = f"{grade:02x}{index:030x}"
            if index:
                os.link(source, source.with_name(f"{name}.tiff"))
            rows.append(f"{name},karolinska,{grade},3+3,{int(index < PER_GRADE)}\n")
    (root / "train_with_noisy_labels.csv").write_text(HEADER + "".join(rows))
    tiles = {"train": 2 * PER_GRADE // 10, "val": 2 * PER_GRADE // 20, "test": 2 * PER_GRADE // 20}
    return {role: dict.fromkeys(range(GRADES), n) for role, n in tiles.items()}
