"""BACH: a folder per class with 100 TIFFs each; eva's splits are ranges of the 400 sorted names. Full counts."""

from pathlib import Path

from tests.evaluate.standins.pixels import Links

PREFIXES = {"Benign": "b", "InSitu": "is", "Invasive": "iv", "Normal": "n"}


def write_bach(root: Path) -> dict[str, dict[int, int]]:
    """Write the 400 images."""
    links = Links(root / "ICIAR2018_BACH_Challenge" / "Photos", ".tif", 4)
    for number, (name, prefix) in enumerate(PREFIXES.items()):
        for index in range(1, 101):
            links.write(f"{name}/{prefix}{index:03d}.tif", number)
    return {"train": {0: 52, 1: 70, 2: 69, 3: 77}, "val": {0: 48, 1: 30, 2: 31, 3: 23}}
