"""The endless stream of augmented tiles that training reads, in whole batches.

Sample i is a function of (seed, i) alone: its slide, position, stains and crops come from counter-based generators
keyed by both. So the data do not depend on the number of workers, and a run that resumes at step k starts there,
with nothing replayed and nothing skipped through. (For slides that vanish meanwhile see `midnight.tiles.draw.drawer`.)
Bit for bit this holds on machines of one kind: another processor may round a pixel of an augmented crop otherwise.

**Processes, not threads.** On two cores two threads give a tenth more tiles than two processes (735 against 660 per s,
`benchmarks/tiles.py`), since batches need no shared memory. But a tenth of the work holds Python's lock: eight threads
would hold up each other and, worse, the training loop that shares the lock with them. And a decoder that crashes takes
a worker with it, not the run.
"""

import itertools
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from midnight.config import choose
from midnight.config.recipe import Crops, Tiles
from midnight.tiles.augment.crops import multi_crop_into
from midnight.tiles.augment.hed import augment as stain
from midnight.tiles.draw.drawn import DrawnTile
from midnight.tiles.draw.rng import Generators, Purpose
from midnight.tiles.draw.shared_reads import SharedReads
from midnight.tiles.draw.source import OnlineSource, TileSource

Batch = dict[str, torch.Tensor]


class TileStream(IterableDataset[Batch]):
    """Batches of tiles, without end. Use with `DataLoader(stream, batch_size=None, num_workers=…)`.

    Batch k of rank r holds the samples (k · world + r) · batch_size + j. Worker w of W makes the batches w, w + W, …
    after `start_step`; the loader takes them in turn, so their order is the same with any number of workers.

    Each batch is a dict of tensors, for B tiles:
        global_crops: uint8 [B, 2, 3, G, G], RGB; in memory [B, 2, G, G, 3]
        local_crops: uint8 [B, L, 3, S, S], RGB; in memory [B, L, S, S, 3]
        tiles: instead of both if `augment` is "device": uint8 [B, size, size, 3], RGB, not yet augmented
        slide: int64 [B], numbers in `slides`
        cohort: int64 [B], numbers in `cohorts`
        mpp: float64 [B], µm/px
        x, y: int64 [B], upper left corner in level-0 px
        index: int64 [B], global numbers of the samples
    """

    def __init__(
        self,
        cohorts: Mapping[str, tuple[Path, float]],
        tiles: Tiles,
        crops: Crops,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        start_step: int = 0,
        augment: Literal["cpu", "device"] = "cpu",
        quarantine: Path | None = None,
        source: TileSource | None = None,
    ) -> None:
        """Read the tissue indexes; slides are opened only when tiles are drawn.

        Args:
            cohorts: name: (tissue index, share of the tiles).
            tiles: which tiles.
            crops: which views of them.
            seed: of everything random.
            batch_size: tiles per batch of this rank.
            rank: this process among `world`.
            world: processes that train together.
            start_step: the first batch.
            augment: "cpu" gives augmented crops; "device" whole tiles, for `midnight.tiles.augment.device`.
            quarantine: file in which slides are recorded that can't be read (see `midnight.tiles.draw.lost_slides`).
            source: where tiles come from, if not from the cohorts' slides: a set drawn beforehand.

        Raises:
            MidnightError: an index can't be read or has no usable slide.
        """
        self._source = source or _online(cohorts, tiles, seed, batch_size * world, quarantine)
        self._tiles, self._crops, self._seed = tiles, crops, seed
        self._batch_size, self._rank, self._world = batch_size, rank, world
        self._raw = choose(augment, {"cpu": False, "device": True}, "training.augment")
        self.start_step = start_step

    @property
    def slides(self) -> Sequence[str]:
        """Ids of the slides that `slide` counts."""
        return self._source.slides

    @property
    def cohorts(self) -> Sequence[str]:
        """Names of the cohorts that `cohort` counts."""
        return self._source.cohorts

    def __iter__(self) -> Iterator[Batch]:
        """The batches from `start_step` on; in a DataLoader's worker, those of this worker.

        Raises:
            MidnightError: no tile can be drawn.
        """
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if info:
            cv2.setNumThreads(0)
        yield from self.batches(self.start_step + worker, workers)

    def batches(
        self, first: int, every: int, memory: Callable[[], Batch] | None = None
    ) -> Generator[Batch, None, None]:
        """The batches first, first + every, … without end.

        Args:
            first: number of the first batch.
            every: 1, or the number of processes that share the batches.
            memory: gives where the pixels of the next batch are written, as in `shapes`; None: memory of its own.

        Raises:
            MidnightError: no tile can be drawn.
        """
        if isinstance(self._source, SharedReads) and first == self.start_step:
            self._source.check_workers(every)
        generators = Generators(self._seed)
        try:
            for step in itertools.count(first, every):
                start = (step * self._world + self._rank) * self._batch_size
                pixels = memory() if memory else self._empty()
                yield self._batch(range(start, start + self._batch_size), generators, pixels)
        finally:
            self._source.close()

    def _batch(self, indexes: Sequence[int], generators: Generators, pixels: Batch) -> Batch:
        arrays = [images.numpy() for images in pixels.values()]
        facts: list[tuple[int, int, float, int, int]] = []
        # Few at a time, so that a tile is still in the processor's cache when it is augmented.
        for part in _parts(indexes, self._source.chunk):
            for index, tile in zip(part, self._source.tiles(part), strict=True):
                self._write(tile, index, generators, [array[len(facts)] for array in arrays])
                facts.append((tile.slide, tile.cohort, tile.mpp, tile.x, tile.y))
        columns = zip(("slide", "cohort", "mpp", "x", "y"), zip(*facts, strict=True), strict=True)
        rest = {name: torch.tensor(values, dtype=_TYPES.get(name, torch.int64)) for name, values in columns}
        return channels_first(pixels) | rest | {"index": torch.tensor(indexes)}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """A batch's pixels, uint8, as they lie in memory: tiles [B, h, w, 3], or crops [B, n, h, w, 3]."""
        crops, count = self._crops, self._batch_size
        if self._raw:
            return {"tiles": (count, self._tiles.size, self._tiles.size, 3)}
        return {
            "global_crops": (count, 2, crops.global_size, crops.global_size, 3),
            "local_crops": (count, crops.n_local, crops.local_size, crops.local_size, 3),
        }

    def _empty(self) -> Batch:
        """A batch's pixels, not yet written."""
        return {name: _uint8(*shape) for name, shape in self.shapes().items()}

    def _write(self, tile: DrawnTile, index: int, generators: Generators, places: Sequence[np.ndarray]) -> None:
        if self._raw:
            places[0][...] = tile.pixels
            return
        pixels = stain(tile.pixels, generators.at(Purpose.STAIN, index), self._tiles.hed_sigma)
        multi_crop_into(pixels, self._crops, generators.at(Purpose.CROPS, index), *places)


def channels_first(pixels: Batch) -> Batch:
    """Crops [B, n, h, w, 3] as [B, n, 3, h, w], without a copy; whole tiles as they are."""
    return {name: images.permute(0, 1, 4, 2, 3) if images.ndim == 5 else images for name, images in pixels.items()}


def _parts(indexes: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (indexes[start : start + size] for start in range(0, len(indexes), size))


_TYPES = {"mpp": torch.float64}


def _uint8(*shape: int) -> torch.Tensor:
    """Memory for pixels; a loader's worker has it shared, so that the main process gets the batch without a copy."""
    if get_worker_info() is None or not math.prod(shape):
        return torch.from_numpy(np.empty(shape, np.uint8))
    shared = torch.UntypedStorage._new_shared(math.prod(shape))
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(shape)


def _online(
    cohorts: Mapping[str, tuple[Path, float]], tiles: Tiles, seed: int, per_step: int, quarantine: Path | None
) -> TileSource:
    """Tiles from slides, with as many per read as the recipe says."""
    if tiles.tiles_per_read == 1:
        return OnlineSource(cohorts, tiles, seed, quarantine)
    return SharedReads(cohorts, tiles, seed, per_step, quarantine)
