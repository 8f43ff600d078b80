"""CRC-100K: two folders of TIFFs, one sub-folder per tissue. Fewer images."""

from pathlib import Path

from tests.evaluate.standins.pixels import Links

CLASSES = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
FOLDERS = {"train": ("NCT-CRC-HE-100K", 9), "val": ("CRC-VAL-HE-7K", 4)}


def write_crc(root: Path) -> dict[str, dict[int, int]]:
    """Write both folders."""
    links = Links(root, ".tif", 9)
    for folder, n in FOLDERS.values():
        for number, name in enumerate(CLASSES):
            for index in range(n):
                links.write(f"{folder}/{name}/{name}-{'TCGA' if n == 4 else 'NCT'}{index:05d}.tif", number)
    return {role: dict.fromkeys(range(9), n) for role, (_, n) in FOLDERS.items()}
