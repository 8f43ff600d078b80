"""What the network sees: a picture of some tiles' crops."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from midnight.atomic import atomic_path
from midnight.config import Crops, Recipe
from midnight.errors import MidnightError
from midnight.ssl.monitor.tracking import Tracker

log = logging.getLogger(__name__)

FILE = "crops.png"
TILES = 8
GAP = 4


class CropSamples:
    """Keeps `crops.png` in the run's folder, and with the tracker: the first batch, then one at every probe."""

    def __init__(self, recipe: Recipe, output: Path, tracker: Tracker | None) -> None:
        self.crops, self.every = recipe.crops, recipe.training.probe_every
        self.path, self.tracker = output / FILE, tracker
        self.first = True

    def look(self, raw: Mapping[str, Tensor], step: int) -> None:
        """Show this batch if it is time to; arguments as of `crop_grid`.

        Args:
            raw: the crops that the step is made with.
            step: micro-steps done before it.
        """
        if not self.first and (self.every == 0 or step % self.every):
            return
        self.first = False
        if write_crops(raw, self.crops, self.path) and self.tracker is not None:
            self.tracker.log_file(self.path)


def crop_grid(raw: Mapping[str, Tensor], config: Crops, tiles: int = TILES) -> np.ndarray:
    """A row per tile: its global crops, then its local ones, on white; RGB uint8 [H, W, 3].

    Args:
        raw: `global_crops` [B, 2, 3, G, G] and `local_crops` [B, L, 3, S, S]: uint8, or float and normalised.
        config: mean and standard deviation of the normalised ones.
        tiles: rows at most.
    """
    views = [_pixels(raw[name][:tiles], config) for name in ("global_crops", "local_crops")]
    sides = [view.shape[2] for view in views for _ in range(view.shape[1])]
    rows, height = len(views[0]), max(sides) + GAP
    grid = np.full((rows * height + GAP, sum(sides) + GAP * (len(sides) + 1), 3), 255, np.uint8)
    left = GAP
    for view in views:
        side = view.shape[2]
        for column in range(view.shape[1]):
            for row in range(rows):
                top = GAP + row * height
                grid[top : top + side, left : left + side] = view[row, column]
            left += side + GAP
    return grid


def write_crops(raw: Mapping[str, Tensor], config: Crops, path: Path) -> bool:
    """Write the picture atomically as PNG; one that can't be written is only logged.

    Returns:
        Whether it was written.
    """
    try:
        with atomic_path(path) as temporary:
            Image.fromarray(crop_grid(raw, config)).save(temporary, format="PNG")
    except (MidnightError, OSError) as error:
        log.warning("no picture of the crops: %s", error)
        return False
    return True


def _pixels(crops: Tensor, config: Crops) -> np.ndarray:
    """Crops [B, V, 3, S, S] as RGB uint8 [B, V, S, S, 3]."""
    if crops.is_floating_point():
        mean, std = (torch.tensor(value, device=crops.device).view(3, 1, 1) for value in (config.mean, config.std))
        crops = ((crops.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return crops.permute(0, 1, 3, 4, 2).cpu().numpy()
