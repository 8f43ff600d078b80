"""What is asked for: which slides, by which model, cut how."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midnight.config import Features, Tissue, plain
from midnight.evaluate.encoder import Encoder
from midnight.hashing import hash_value
from midnight.outages import Patience
from midnight.slides.local import find_slides
from midnight.slides.record import Refused, Slide
from midnight.tissue.index import TissueRecord, read_index
from midnight.tissue.shard import SlideRow, segment_slide

FORMAT = 1
"""Raised when a change of this package changes features: those of another format are made again."""


@dataclass(frozen=True)
class Item:
    """A slide to embed.

    Attributes:
        slide_id: names its file.
        path: of the slide.
        identity: changes when the slide's file or its stated resolution does.
        bytes: size of the slide, by which the time left is estimated.
        find: gives its tissue, with a patience for slides that are away.
    """

    slide_id: str
    path: str
    identity: str
    bytes: int
    find: Callable[[Patience], TissueRecord]


@dataclass(frozen=True)
class FeatureJob:
    """How slides are embedded.

    Attributes:
        encoder: the model, on its device.
        name: of the model.
        precision: of `midnight.evaluate.encoder.STORED`.
        features: how tiles are cut, and what is kept of the model's tokens.
        tissue: how tissue is found.
        batch_size: tiles per forward pass.
        workers: reading threads.
    """

    encoder: Encoder
    name: str
    precision: str
    features: Features
    tissue: Tissue
    batch_size: int
    workers: int

    @property
    def settings(self) -> dict[str, Any]:
        """All that the features of a slide depend on besides the slide: files of other settings are not mixed."""
        cut = {name: value for name, value in plain(self.features).items() if name != "models"}
        tissue = {f"tissue.{name}": value for name, value in plain(self.tissue).items() if name != "workers"}
        return {"format": FORMAT, "weights": self.encoder.hash, "precision": self.precision} | cut | tissue


def local_items(slides: str, tissue: Tissue) -> tuple[list[Item], list[Refused]]:
    """The slides of a folder, a CSV or one file, and those that were left out.

    Raises:
        ConfigError: see `midnight.slides.local.find_slides`.
    """
    found, refused = find_slides(slides)
    return [_local_item(slide, tissue) for slide in found], refused


def _local_item(slide: Slide, tissue: Tissue) -> Item:
    look = [slide.size, *(slide.extra.get(name) for name in ("modified", "files", "bytes", "mpp"))]
    row = SlideRow(slide.slide_id, slide.extra["path"], "ok", "", slide.extra.get("mpp"))
    size = int(slide.extra.get("bytes", slide.size))
    return Item(row.slide_id, row.path, hash_value(look), size, lambda patience: segment_slide(row, tissue, patience))


def indexed_items(index: Path) -> list[Item]:
    """The slides of a tissue index or of a shard of one, also the quarantined: their tissue is known.

    Raises:
        MidnightError: it can't be read.
    """
    return [_indexed_item(record) for record in read_index(index)]


def _indexed_item(record: TissueRecord) -> Item:
    identity = hash_value([record.file_size, record.modified, record.mpp])
    return Item(record.slide_id, record.path, identity, record.file_size, lambda _: record)
