"""MHIST: PNGs of one folder and a table with their labels and partitions. Full counts."""

import csv
from pathlib import Path

from tests.evaluate.standins.pixels import Links, count

COUNTS = {"train": 2175, "test": 977}
HEADER = ("Image Name", "Majority Vote Label", "Number of Annotators who Selected SSA (Out of 7)", "Partition")


def write_mhist(root: Path) -> dict[str, dict[int, int]]:
    """Write the 3,152 images and `annotations.csv`; SSA is class 0 in eva, HP class 1."""
    links = Links(root / "images", ".png", 2)
    rows: list[tuple[object, ...]] = [HEADER]
    truth = {}
    for partition, n in COUNTS.items():
        labels = [int(index % 3 > 0) for index in range(n)]
        truth["train" if partition == "train" else "val"] = count(labels)
        for label in labels:
            name = f"MHIST_{len(rows):04d}.png"
            links.write(name, label)
            rows.append((name, ("SSA", "HP")[label], (6, 1)[label], partition))
    with (root / "annotations.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return truth
