"""What the stand-ins are made of: images whose colour tells the class, many names for the bytes of a few."""

import colorsys
import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

VARIANTS = 3


def colour(number: int, of: int) -> np.ndarray:
    """A saturated RGB colour for class `number`: uint8 [3]."""
    return np.array(np.multiply(colorsys.hsv_to_rgb(number / of, 0.8, 0.7), 255), np.uint8)


def draw(number: int, of: int, variant: int, side: int) -> np.ndarray:
    """A noisy field of a class's colour, brighter with each variant: uint8 [side, side, 3]."""
    noise = np.random.default_rng([number, of, variant]).integers(-20, 20, (side, side, 3))
    return np.clip(colour(number, of) + noise + 12 * variant, 0, 255).astype(np.uint8)


class Links:
    """Images in a format, each distinct one written once and hard-linked afterwards: thousands in a second."""

    def __init__(self, root: Path, suffix: str, classes: int, side: int = 8) -> None:
        self.root, self.suffix, self.classes, self.side = root, suffix, classes, side
        self.first: dict[tuple[int, int], Path] = {}
        self.folders: set[Path] = set()
        self.written = 0

    def write(self, name: str, number: int) -> None:
        """`root/name` with an image of class `number`."""
        path = self.root / name
        if path.parent not in self.folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.folders.add(path.parent)
        kind = (number, self.written % VARIANTS)
        self.written += 1
        if kind in self.first:
            os.link(self.first[kind], path)
            return
        image = draw(number, self.classes, kind[1], self.side)
        path.write_bytes(cv2.imencode(self.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())
        self.first[kind] = path


def spread(count: int, classes: int) -> list[int]:
    """Sizes of `classes` groups that add up to `count`, as equal as can be."""
    return [count // classes + (group < count % classes) for group in range(classes)]


def count(labels: Iterable[int]) -> dict[int, int]:
    """How often each label occurs, by label."""
    values, counts = np.unique(list(labels), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))
