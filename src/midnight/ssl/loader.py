"""Batches of crops from slides."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from midnight.config import Recipe
from midnight.errors import MidnightError
from midnight.ssl import distributed
from midnight.tiles.shards.source import open_source
from midnight.tiles.source import TileSource
from midnight.tiles.stream import TileStream

Batches = Iterable[Mapping[str, Tensor]]
Loader = Callable[[int], Batches]
"""From the first micro-step to the batches from there on; the seam by which tests bring their own data."""

# Batches that each worker holds ready: enough for the spread between slow slides and fast ones.
PREFETCH = 4


def tile_loader(
    recipe: Recipe,
    cohorts: Mapping[str, tuple[Path, float]],
    quarantine: Path | None = None,
    source: TileSource | None = None,
) -> Loader:
    """Batches of this process's tiles, the same whatever the number of worker processes.

    The stream never ends, so the workers stay for the whole run; they end when the batches are closed or dropped.

    Args:
        recipe: tiles, crops, batch size, workers and seed.
        cohorts: index of slides and share of the tiles, by name.
        quarantine: file in which slides are recorded that turn out unreadable.
        source: where tiles come from, if not from the cohorts' slides.
    """

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
            augment=recipe.training.augment,
            quarantine=quarantine,
            source=source,
        )
        return _one_line_errors(worker_batches(stream, recipe.training.workers))

    return batches


def tile_source(recipe: Recipe, cohorts: Mapping[str, tuple[Path, float]], drawn: Path | None) -> TileSource | None:
    """The set of tiles that the recipe trains on; None where it draws them from the slides while training.

    Args:
        recipe: `tiles.predrawn` decides.
        cohorts: as in `tile_loader`.
        drawn: the index of the set.

    Raises:
        MidnightError: there is no index, or it is of other tiles.
    """
    if recipe.tiles.predrawn is None:
        return None
    if drawn is None:
        raise MidnightError(
            f"recipe {recipe.name}: it trains on tiles drawn beforehand (tiles.predrawn), and no index of them was "
            f"given; train it by Snakemake, which draws them, or set tiles.predrawn to null"
        )
    return open_source(drawn, recipe.tiles, {name: share for name, (_, share) in cohorts.items()}, recipe.seed)


def worker_batches(stream: TileStream, workers: int) -> Iterator[Mapping[str, Tensor]]:
    """The stream's batches, made by `workers` processes (0: by this one), which end with the iterator."""
    loader = DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    batches = iter(loader)
    try:
        yield from batches
    finally:
        # Not left to the garbage collector: after an error the traceback keeps the iterator and its processes.
        if workers:
            batches._shutdown_workers()  # type: ignore[attr-defined]


def _one_line_errors(batches: Iterator[Mapping[str, Tensor]]) -> Batches:
    """Errors as one line: that of a worker comes with its traceback as the message, a dead worker as RuntimeError."""
    try:
        yield from batches
    except MidnightError as error:
        text = str(error).strip().splitlines()[-1]
        raise MidnightError(re.sub(r"^(midnight\.[\w.]+: )", "", text)) from error
    except (RuntimeError, EOFError, ConnectionError) as error:  # the last two: it died while it handed over a batch
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MidnightError(
            f"a data-loading process died: {reason}; mostly memory: lower training.workers or tiles.max_open_slides"
        ) from error
