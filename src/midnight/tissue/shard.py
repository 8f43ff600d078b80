"""The tissue of a shard of slides: one record per slide, good or quarantined."""

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import openslide
from tqdm import tqdm

from midnight.config.pipeline import Tissue
from midnight.errors import MidnightError
from midnight.outages import Patience
from midnight.pools import thread_pool
from midnight.slides.table import read_table
from midnight.tissue.index import TissueRecord, write_records
from midnight.tissue.mask import Mask, pack
from midnight.tissue.openslides import open_slide
from midnight.tissue.resolution import (
    ADVICE,
    STANDARD_MPPS,
    TILE,
    SlideError,
    find_resolution,
    has_mpp,
    usable_mpps,
)
from midnight.tissue.segmenters import segment
from midnight.tissue.thumbnail import Thumbnail, read_thumbnail

log = logging.getLogger(__name__)

# Longer side of the thumbnail kept for the quality page, px.
PAGE_THUMBNAIL = 480
# The segmenter that takes whatever is coloured, by any stain.
STAINLESS: Literal["otsu"] = "otsu"
REQUIRED = ("slide_id", "path", "status", "reason")


@dataclass(frozen=True)
class SlideRow:
    """A row of the slides table.

    mpp: the manifest's µm/px, if it has one; verified: the file has the manifest's md5, so when it came does not count.
    """

    slide_id: str
    path: str
    status: str
    reason: str
    mpp: float | None
    verified: bool = False


def read_slides(path: Path) -> list[SlideRow]:
    """The slides table of a shard: a TSV with slide_id, path, status, reason and optionally mpp.

    Raises:
        MidnightError: it can't be read or lacks a column.
    """
    table = read_table(path)
    if missing := [name for name in REQUIRED if name not in table.columns]:
        raise MidnightError(f"{path}: column {', '.join(missing)} is missing; run the slides stage again")
    verified = table.header.get("source") == "gdc"
    return [_slide_row(dict(zip(table.columns, cells, strict=True)), path, verified) for _, cells in table.rows]


def _slide_row(row: dict[str, str], path: Path, verified: bool) -> SlideRow:
    text = (row.get("mpp") or "").strip()
    try:
        mpp = float(text) if text else None
    except ValueError as error:
        raise MidnightError(f"{path}: slide {row['slide_id']}: mpp is {text!r}, must be a number or empty") from error
    return SlideRow(row["slide_id"], row["path"], row["status"], row["reason"], mpp, verified)


def segment_shard(slides: Path, config: Tissue, output: Path) -> None:
    """Find the tissue of every slide of a shard and write their records (see `TissueRecord`) as Parquet.

    A slide that can't be used becomes a quarantined record with its reason; slides that were quarantined before
    keep theirs. Slides that are away for the moment are waited for (see `midnight.outages`).

    Args:
        slides: the shard's slides table, a TSV with slide_id, path, status, reason and optionally mpp.
        config: segmenter and its settings; `workers` slides are read at a time.
        output: Parquet file to write.

    Raises:
        MidnightError: the table can't be read, the slides stay away, or the output can't be written.
    """
    rows = read_slides(Path(slides))
    patience = Patience(files=[row.path for row in rows if row.status == "ok"])
    with thread_pool(config.workers) as pool:
        found = pool.map(lambda row: segment_slide(row, config, patience), rows)
        records = list(tqdm(found, total=len(rows), desc=f"tissue {Path(slides).stem}", unit="slide"))
    for record in _quarantined(records):
        log.warning("slide %s is quarantined: %s", record.slide_id, record.reason)
    write_records(records, Path(output))


def _quarantined(records: list[TissueRecord]) -> Iterator[TissueRecord]:
    return (record for record in records if not record.ok)


def segment_slide(row: SlideRow, config: Tissue, patience: Patience | None = None) -> TissueRecord:
    """The record of one slide: "ok" with its mask, or "quarantined" with the reason.

    Args:
        row: the slide.
        config: how its tissue is found.
        patience: with which it is waited for when it is away for the moment; none if not given.

    Raises:
        MidnightError: it stays away, and others with it.
    """
    blank = TissueRecord(row.slide_id, row.path, status=row.status, reason=row.reason)
    if row.status != "ok":
        return dataclasses.replace(blank, status="quarantined", reason=row.reason or f"status {row.status!r}")
    known = blank

    def find() -> TissueRecord:
        nonlocal known
        # before it is read: where it is replaced meanwhile, that is noticed
        known = blank.stamped(not row.verified)
        with open_slide(row.path) as slide:
            known = _describe(known, slide, row.mpp)
            return _with_tissue(known, slide, config)

    try:
        return (patience or Patience(0)).insist(find, row.path)
    except SlideError as error:
        reason = str(error)
    except MidnightError:
        raise
    except Exception as error:
        # Nothing that one odd file does may end a run over 12,000 of them; the log has the traceback.
        log.exception("slide %s", row.slide_id)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return dataclasses.replace(known, status="quarantined", reason=reason)


def _describe(blank: TissueRecord, slide: openslide.OpenSlide, declared: float | None) -> TissueRecord:
    """Sizes and resolution; raises SlideError where no tile could ever be drawn."""
    resolution = find_resolution(slide.properties, declared)
    if resolution.stated:
        log.warning(
            "slide %s: taken at %g µm/px, as the manifest says; the slide itself states %s",
            *(blank.slide_id, resolution.mpp, resolution.stated),
        )
    width, height = slide.dimensions
    mpps = usable_mpps(width, height, resolution.mpp)
    if not has_mpp(resolution.mpp, max(STANDARD_MPPS)):
        raise SlideError(
            f"coarser than all tiles: {resolution.mpp:g} µm/px from the {resolution.source}, tiles have at most "
            f"{max(STANDARD_MPPS):g}; if that is wrong, {ADVICE}"
        )
    if min(width, height) < TILE or not mpps:
        raise SlideError(f"too small for one tile: {width} × {height} px at {resolution.mpp:g} µm/px")
    return dataclasses.replace(
        blank,
        vendor=slide.properties.get(openslide.PROPERTY_NAME_VENDOR, ""),
        mpp=resolution.mpp,
        mpp_source=resolution.source + (f"; the slide states {resolution.stated}" if resolution.stated else ""),
        width=width,
        height=height,
        level_widths=tuple(size[0] for size in slide.level_dimensions),
        level_heights=tuple(size[1] for size in slide.level_dimensions),
        level_downsamples=tuple(slide.level_downsamples),
        mpps=tuple(mpps),
    )


def _with_tissue(record: TissueRecord, slide: openslide.OpenSlide, config: Tissue) -> TissueRecord:
    """The record with mask, area and thumbnail; without any tissue it is quarantined, with its thumbnail."""
    thumbnail = read_thumbnail(slide, record.mpp, config.mpp)
    mask = segment(thumbnail.image, thumbnail.mpp, config)
    found = dataclasses.replace(
        record,
        mask_width=mask.shape[1],
        mask_height=mask.shape[0],
        mask_mpp=thumbnail.mpp,
        tissue_mm2=_area(mask, record),
        packed=pack(mask),
        jpeg=_jpeg(thumbnail.image),
    )
    if mask.any():
        return found
    return dataclasses.replace(found, status="quarantined", reason=_why_no_tissue(record, thumbnail, config))


def _why_no_tissue(record: TissueRecord, thumbnail: Thumbnail, config: Tissue) -> str:
    """Whether there is none at all, or the segmenter does not know this stain."""
    other = segment(thumbnail.image, thumbnail.mpp, dataclasses.replace(config, segmenter=STAINLESS))
    if config.segmenter == STAINLESS or not other.any():
        return "no tissue found"
    return (
        f"no tissue found by {config.segmenter}, {_area(other, record):.2g} mm² by {STAINLESS}: "
        f"if it is not stained with H&E, set tissue.segmenter: {STAINLESS}"
    )


def _area(mask: Mask, record: TissueRecord) -> float:
    """Tissue in mm²."""
    slide_mm2 = record.width * record.height * record.mpp**2 / 1e6
    return float(mask.mean()) * slide_mm2


def _jpeg(image: npt.NDArray[np.uint8]) -> bytes:
    """The thumbnail, at most 480 px on its longer side, as JPEG."""
    scale = min(1.0, PAGE_THUMBNAIL / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return bytes(data)
