"""Our side: the public TileStream, in the modes that are compared."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midnight.config import Crops, Tiles, Tissue
from midnight.tiles.augment.hed import augment
from midnight.tiles.draw.rng import Generators, Purpose
from midnight.tiles.draw.shared_reads import LANES
from midnight.tiles.stream import TileStream
from midnight.tissue.index import join_shards, write_records
from midnight.tissue.shard import SlideRow, segment_slide

from .timing import Side

BATCH = 64
SEED = 11
MPPS = (0.25, 0.5, 1.0, 2.0)
SHARED_READS = (8, 16)
NONE, HED, CROPS = "a", "b", "c"

PLAIN_CROPS = Crops(jitter_p=0.0, grayscale_p=0.0, blur_p=(0.0, 0.0, 0.0), solarize_p=0.0)
"""2 × 224 + 8 × 98 with flips and turns but no photometric augmentation, of which the peer's recipe has none."""


@dataclass(frozen=True)
class Setting:
    """One of our configurations.

    mode: "a" no augmentation, "b" HED, "c" HED and crops; mpps with their weights (None: uniform); tiles_per_read;
    crops of mode c.
    """

    mode: str
    mpps: tuple[float, ...] = MPPS
    weights: tuple[float, ...] | None = None
    tiles_per_read: int = 1
    crops: Crops = PLAIN_CROPS

    def tiles(self) -> Tiles:
        """The recipe's settings; HED is part of the stream in mode c only."""
        return Tiles(mpps=self.mpps, mpp_weights=self.weights, tiles_per_read=self.tiles_per_read)

    @property
    def warm_up(self) -> int:
        """Batches until the stream runs evenly: with shared reads, those in which every place reads for itself."""
        return LANES if self.tiles_per_read > 1 else 0


def build_index(slides: list[Path], output: Path) -> Path:
    """The tissue index of the slides, made by the tissue stage with its defaults (HSV ranges of the paper)."""
    records = [segment_slide(SlideRow(path.stem, str(path), "ok", "", None), Tissue()) for path in slides]
    if bad := [record for record in records if not record.ok]:
        raise RuntimeError(f"{bad[0].path}: {bad[0].reason}")
    shard = output.with_name("shard.parquet")
    write_records(records, shard)
    join_shards([shard], output)
    return output


def make_stream(index: Path, setting: Setting, batch: int = BATCH, seed: int = SEED, **further: Any) -> TileStream:
    """The stream of a setting: whole tiles ("device" mode) for a and b, crops for c."""
    device = setting.mode != CROPS
    options = {"augment": "device" if device else "cpu"} | further
    return TileStream({"bench": (index, 1.0)}, setting.tiles(), setting.crops, seed, batch, **options)


def batches(index: Path, setting: Setting, **options: Any) -> Iterator[dict[str, Any]]:
    """Batches without end; in mode b with the stain augmented in place."""
    generators = Generators(SEED)
    for batch in make_stream(index, setting, **options):
        if setting.mode == HED:
            pixels = batch["tiles"].numpy()
            for tile, number in zip(pixels, batch["index"].tolist(), strict=True):
                tile[...] = augment(tile, generators.at(Purpose.STAIN, number), setting.tiles().hed_sigma)
        yield batch


def side(index: Path, setting: Setting, **options: Any) -> Side:
    """Our side for `timing.drive`; its first step is preceded by the setting's warm-up."""
    for batch in itertools.islice(batches(index, setting, **options), setting.warm_up, None):
        yield len(batch["index"])
