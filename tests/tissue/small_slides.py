"""Small Aperio-style slides for tests: tiled pyramids that OpenSlide opens as `aperio`, with known content."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import tifffile

from midnight.config import Tissue
from midnight.tissue.index import TissueRecord, join_shards
from midnight.tissue.mask import pack
from midnight.tissue.resolution import usable_mpps
from midnight.tissue.shard import segment_shard

PINK = (205, 130, 180)
PURPLE = (120, 80, 150)
BACKGROUND = (244, 243, 245)


def write_slide(
    path: Path,
    image: np.ndarray,
    mpp: float | None = 0.5,
    power: float | None = None,
    downsamples: Sequence[int] = (4,),
    compression: str = "deflate",
) -> Path:
    """`image` as level 0 and its area averages as further levels, whose sizes are rounded down as Aperio does."""
    description = f"Aperio Image Library v12.0\r\n{image.shape[1]}x{image.shape[0]} (240x240)"
    description += f"|AppMag = {power:g}" if power else ""
    description += f"|MPP = {mpp}" if mpp else ""
    options = {"tile": (240, 240), "photometric": "rgb", "compression": compression, "metadata": None}
    with tifffile.TiffWriter(path) as file:
        file.write(image, description=description, **options)
        for downsample in downsamples:
            size = image.shape[1] // downsample, image.shape[0] // downsample
            level = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            file.write(level, description=description, **options)
    return path


def tissue_image(height: int, width: int, boxes: Sequence[tuple[int, int, int, int]], seed: int = 0) -> np.ndarray:
    """White glass with boxes (top, left, height, width) of pink, purple-spotted tissue."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), BACKGROUND, np.uint8)
    for top, left, h, w in boxes:
        spots = cv2.resize(rng.random((h // 8 + 1, w // 8 + 1)).astype(np.float32), (w, h)) > 0.75
        box = np.where(spots[..., None], PURPLE, PINK) + rng.integers(-12, 13, (h, w, 1))
        image[top : top + h, left : left + w] = np.clip(box, 0, 255)
    return image


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """The slides table of a shard."""
    columns = ["slide_id", "path", "status", "reason", "bytes", "seconds"]
    columns += sorted({name for row in rows for name in row} - set(columns))
    lines = ["\t".join(columns)]
    for row in rows:
        filled = {"status": "ok", "reason": "", "bytes": 1, "seconds": 0.1} | dict(row)
        lines.append("\t".join(str(filled.get(name, "")) for name in columns))
    path.write_text("\n".join(lines) + "\n")
    return path


def make_index(folder: Path, slides: Sequence[Path], config: Tissue | None = None) -> Path:
    """The tissue index of slides, by the real chain."""
    rows = [{"slide_id": path.stem, "path": path} for path in slides]
    table = write_table(folder / "slides.tsv", rows)
    segment_shard(table, config or Tissue(workers=1), folder / "0000.parquet")
    join_shards([folder / "0000.parquet"], folder / "index.parquet")
    return folder / "index.parquet"


def make_record(
    mask: np.ndarray,
    slide_id: str = "slide",
    mpp: float = 0.5,
    scale: int = 16,
    downsamples: Sequence[float] = (1.0, 4.0),
) -> TissueRecord:
    """A record (without a file) whose mask px are `scale` level-0 px wide."""
    height, width = (side * scale for side in mask.shape)
    return TissueRecord(
        slide_id,
        f"{slide_id}.svs",
        mpp=mpp,
        width=width,
        height=height,
        level_widths=tuple(int(width / downsample) for downsample in downsamples),
        level_heights=tuple(int(height / downsample) for downsample in downsamples),
        level_downsamples=tuple(downsamples),
        mask_width=mask.shape[1],
        mask_height=mask.shape[0],
        mask_mpp=mpp * scale,
        tissue_mm2=float(mask.mean()) * width * height * mpp**2 / 1e6,
        mpps=tuple(usable_mpps(width, height, mpp)),
        packed=pack(mask),
    )
