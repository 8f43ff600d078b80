"""CoNSeP: PNG fields and MATLAB files with the type of each pixel. Full counts of fields of one crop (250 px)."""

from pathlib import Path

import cv2
import numpy as np
import scipy.io

from tests.evaluate.standins.pixels import colour

SIDE = 250
COUNTS = {"train": ("Train", 27), "val": ("Test", 14)}
CLASS_OF_TYPE = (0, 1, 2, 3, 3, 4, 4, 4)
"""eva's classes: healthy and malignant epithelium are one, fibroblast, muscle and endothelium another."""


def write_consep(root: Path, most: int = 27) -> dict[str, dict[int, int]]:
    """Write the 41 fields, or at most so many per split; the colour of a pixel tells its class.

    The first field of each split has a second crop, of nothing but glass: eva's configurations take those as well.
    """
    colours = np.stack([np.full(3, 243, np.uint8), *(colour(number, 5) for number in CLASS_OF_TYPE[1:])])
    for folder, n in COUNTS.values():
        for kind in ("Images", "Labels"):
            (root / folder / kind).mkdir(parents=True)
        for index in range(min(n, most)):
            coarse = np.random.default_rng([n, index]).permutation(25).reshape(5, 5) % 8
            types = np.pad(np.kron(coarse, np.ones((50, 50), int)), ((0, 0), (0, 0 if index else SIDE)))
            name = f"{folder.lower()}_{index + 1}"
            cv2.imwrite(str(root / folder / "Images" / f"{name}.png"), colours[types][..., ::-1])
            maps = {"type_map": types.astype(np.uint8), "inst_map": (types > 0).astype(np.int32)}
            scipy.io.savemat(root / folder / "Labels" / f"{name}.mat", maps, do_compression=True)
    held = {role: min(n, most) for role, (_, n) in COUNTS.items()}
    return {role: dict.fromkeys(range(5), n) | {0: n + 1} for role, n in held.items()}
