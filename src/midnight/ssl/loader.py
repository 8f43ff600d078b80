"""Batches of crops from slides."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from midnight.config import Recipe
from midnight.errors import MidnightError
from midnight.ssl import distributed

Batches = Iterable[Mapping[str, Tensor]]
Loader = Callable[[int], Batches]
"""From the first micro-step to the batches from there on; the seam by which tests bring their own data."""


def tile_loader(recipe: Recipe, cohorts: Mapping[str, tuple[Path, float]]) -> Loader:
    """Batches of this process's tiles, the same whatever the number of worker processes.

    Args:
        recipe: tiles, crops, batch size, workers and seed.
        cohorts: index of slides and share of the tiles, by name.
    """
    from midnight.tiles.stream import TileStream

    def batches(start_step: int) -> Batches:
        stream = TileStream(
            cohorts,
            recipe.tiles,
            recipe.crops,
            recipe.seed,
            recipe.training.batch_size,
            rank=distributed.rank(),
            world=distributed.world(),
            start_step=start_step,
        )
        return _one_line_errors(
            DataLoader(
                stream,
                batch_size=recipe.training.batch_size,
                num_workers=recipe.training.workers,
                pin_memory=torch.cuda.is_available(),
            )
        )

    return batches


def _one_line_errors(batches: Batches) -> Batches:
    """A worker process's error comes with its whole traceback as the message; its last line is the message."""
    try:
        yield from batches
    except MidnightError as error:
        text = str(error).strip().splitlines()[-1]
        raise MidnightError(text.removeprefix("midnight.errors.").removeprefix("MidnightError: ")) from error
