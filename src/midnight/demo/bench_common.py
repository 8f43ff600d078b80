"""What the demo's benchmarks share: pieces of tissue, and a look of its own for every image."""

from pathlib import Path

import cv2
import numpy as np

from midnight.demo.beer_lambert import colourise, draw_stain
from midnight.demo.glands import GlandStyle
from midnight.demo.noise import Bytes
from midnight.demo.render import render
from midnight.demo.scene import Scene, build_scene

MEAN_AMOUNT = (44.0, 46.0)
"""Mean haematoxylin and eosin that images are drawn towards, plane units."""


def generator(seed: int, *path: int) -> np.random.Generator:
    """Randomness for one part of the benchmarks; `path` names the part, so that parts don't depend on each other."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 7, *path])))


def draw_planes(
    rng: np.random.Generator, classes: Bytes, mpp: float, glands: GlandStyle | None = None
) -> tuple[Scene, Bytes]:
    """A scene on a class map (uint8, 1 µm/px) and its stain planes: uint8 [2, h, w] at `mpp`."""
    scene = build_scene(rng, classes, glands)
    return scene, render(scene, mpp)


def own_look(rng: np.random.Generator, planes: Bytes) -> Bytes:
    """Colour an image with a stain of its own, with amounts of dye that don't depend on what it shows.

    Without this the mean colour would give the class away (tumour is bluer than stroma), and a benchmark that
    counts blue pixels measures no representation.

    Args:
        rng: source of randomness.
        planes: uint8 [2, h, w], haematoxylin and eosin.

    Returns:
        uint8 [h, w, 3], RGB.
    """
    amounts = [
        cv2.convertScaleAbs(plane, alpha=np.clip(mean * rng.uniform(0.8, 1.2) / max(plane.mean(), 1), 0.6, 1.7))
        for plane, mean in zip(planes, MEAN_AMOUNT, strict=True)
    ]
    return colourise(amounts[0], amounts[1], draw_stain(rng))


def fresh_folder(path: Path) -> Path:
    """The folder, made if absent."""
    path.mkdir(parents=True, exist_ok=True)
    return path
