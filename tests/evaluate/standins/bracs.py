"""BRACS: regions of interest as PNG, a folder per split and class. Fewer regions."""

from pathlib import Path

from tests.evaluate.standins.pixels import Links

CLASSES = ("0_N", "1_PB", "2_UDH", "3_FEA", "4_ADH", "5_DCIS", "6_IC")
PER_CLASS = {"train": 12, "val": 4, "test": 6}


def write_bracs(root: Path) -> dict[str, dict[int, int]]:
    """Write the three splits."""
    links = Links(root / "BRACS_RoI" / "latest_version", ".png", 7)
    for split, n in PER_CLASS.items():
        for number, name in enumerate(CLASSES):
            for index in range(n):
                links.write(f"{split}/{name}/BRACS_{index:04d}_{name[2:]}_1.png", number)
    return {split: dict.fromkeys(range(7), n) for split, n in PER_CLASS.items()}
