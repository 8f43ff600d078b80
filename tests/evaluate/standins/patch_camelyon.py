"""PatchCamelyon: two HDF5 files per split, x uint8 [n, 96, 96, 3] and y uint8 [n, 1, 1, 1]. Fewer patches."""

from pathlib import Path

import h5py
import numpy as np

from tests.evaluate.standins.pixels import count, draw

SPLITS = {"train": ("train", 120), "val": ("valid", 40), "test": ("test", 60)}


def write_patch_camelyon(root: Path) -> dict[str, dict[int, int]]:
    """Write the six files."""
    root.mkdir(parents=True)
    truth = {}
    for role, (suffix, n) in SPLITS.items():
        labels = np.arange(n) % 2
        images = np.stack([draw(label, 2, index % 5, 96) for index, label in enumerate(labels)])
        for key, values in (("x", images), ("y", labels.astype(np.uint8).reshape(-1, 1, 1, 1))):
            with h5py.File(root / f"camelyonpatch_level_2_split_{suffix}_{key}.h5", "w") as file:
                file[key] = values
        truth[role] = count(labels)
    return truth
