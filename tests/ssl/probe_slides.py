"""Slides and a recipe for tests of the probe: two kinds of tissue, told apart by the size of their spots."""

from pathlib import Path
from typing import Any

import numpy as np

from midnight.config import Recipe
from midnight.slides.manifest import write_manifest
from midnight.slides.record import Slide
from tests.ssl.tiny import tiny_recipe
from tests.tissue.small_slides import make_index, tissue_image, write_slide


def probe_recipe(**training: Any) -> Recipe:
    values = {"probe_every": 4, "probe_tiles": 40, **training}
    return tiny_recipe(tiles={"size": 32, "mpps": [0.5], "hsv_filter": None, "foreground": 0.99}, training=values)


def coarse(image: np.ndarray) -> np.ndarray:
    """The same image with every pixel four times as large."""
    return np.kron(image[: image.shape[0] // 4, : image.shape[1] // 4], np.ones((4, 4, 1), np.uint8))


def write_cohort(folder: Path, kinds: dict[str, bool]) -> Path:
    """The index of small slides: name: whether its spots are coarse."""
    folder.mkdir(parents=True, exist_ok=True)
    slides = []
    for number, (name, large) in enumerate(kinds.items()):
        image = tissue_image(480, 480, [(40, 40, 400, 400)], seed=number)
        slides.append(write_slide(folder / f"{name}.svs", coarse(image) if large else image, 0.5))
    return make_index(folder, slides)


def write_projects(path: Path, facts: dict[str, tuple[str, str]]) -> Path:
    """A manifest: slide: (project, patient)."""
    slides = [
        Slide(name, "gdc", name, f"{name}.svs", 1, "0" * 32, project, patient)
        for name, (project, patient) in facts.items()
    ]
    write_manifest(path, slides, {})
    return path
