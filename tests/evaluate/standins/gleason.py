"""Gleason (Arvaniti): JPEG patches; the array (first part of the name) gives the split, the last part the class. Fewer.

The first pathologist's patches of the test array are there as well: eva counts them as a split of their own.
"""

from pathlib import Path

from tests.evaluate.standins.pixels import Links

ARRAYS = {"train": ("ZT111", "ZT199", "ZT204"), "val": ("ZT76",)}


def write_gleason(root: Path) -> dict[str, dict[int, int]]:
    """Write the patches of the five arrays."""
    links = Links(root, ".jpg", 4, side=16)
    for array in (*ARRAYS["train"], *ARRAYS["val"]):
        _write_array(links, "train_validation_patches_750", array, 6)
    _write_array(links, "test_patches_750/patho_1", "ZT80", 2)
    return {role: dict.fromkeys(range(4), 6 * len(arrays)) for role, arrays in ARRAYS.items()}


def _write_array(links: Links, folder: str, array: str, n: int) -> None:
    for number in range(4):
        for index in range(n):
            core = f"{array}_4_A_{number + 1}_{index + 1}"
            links.write(f"{folder}/{core}/{core}_patch_{index}_class_{number}.jpg", number)
