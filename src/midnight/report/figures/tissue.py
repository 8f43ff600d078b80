"""Thumbnails with the outline of the tissue mask."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from midnight.report.figures import style
from midnight.tissue.index import TissueRecord, read_index

COLUMNS = 3
LONGEST = 320


@dataclass(frozen=True)
class Thumbnail:
    """A slide's thumbnail uint8 [H, W, 3] with its mask bool [h, w] (any scale)."""

    name: str
    image: np.ndarray
    mask: np.ndarray
    tissue_mm2: float


def read_thumbnails(index: Path, limit: int) -> tuple[list[Thumbnail], int]:
    """Up to `limit` usable slides of a tissue index, evenly over the sorted list, and how many there are."""
    usable = [record for record in read_index(index) if record.ok and record.mask_width > 0]
    keep = np.unique(np.linspace(0, len(usable) - 1, min(limit, len(usable))).round().astype(int))
    return [_thumbnail(usable[i]) for i in keep if usable[i].thumbnail()], len(usable)


def _thumbnail(record: TissueRecord) -> Thumbnail:
    image = Image.open(io.BytesIO(record.thumbnail())).convert("RGB")
    image.thumbnail((LONGEST, LONGEST))
    return Thumbnail(record.slide_id, np.asarray(image), record.mask(), record.tissue_mm2)


def draw_tissue(index: Path, output: Path, cohort: str, limit: int = 9) -> None:
    """Thumbnails of a cohort with mask outlines.

    Args:
        index: the cohort's tissue index (`midnight.tissue.index`).
        output: `tissue-{cohort}.png`.
        cohort: name for the title.
        limit: slides shown at most.
    """
    slides, total = read_thumbnails(index, limit)
    title = f"Tissue masks of {cohort}"
    if not slides:
        style.missing(output, title, f"{cohort} has no slide with a mask.")
        return
    draw_thumbnails(slides, output, title, f"{len(slides)} of {total} usable slides; the outline is the tissue mask.")


def draw_thumbnails(slides: Sequence[Thumbnail], output: Path, title: str, caption: str) -> None:
    """Draw thumbnails in rows of up to three, with name and tissue area."""
    columns = min(COLUMNS, max(2, len(slides)))
    rows = -(-len(slides) // columns)
    tallest = max(slide.image.shape[0] / slide.image.shape[1] for slide in slides)
    with style.figure(rows * (style.WIDTH / columns * min(tallest, 2.0) + 0.42)) as drawn:
        axes = drawn.subplots(rows, columns, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for axis, slide in zip(axes.flat, slides, strict=False):
            _draw(axis, slide)
        names = ", ".join(f"{slide.name} {slide.tissue_mm2:.1f} mm²" for slide in slides)
        style.save(drawn, output, title, f"Slide thumbnails with tissue outlines: {names}.", caption)


def _draw(axis: Axes, slide: Thumbnail) -> None:
    height, width = slide.image.shape[:2]
    axis.imshow(slide.image)
    mask = np.pad(slide.mask, 1)
    scale_x, scale_y = width / slide.mask.shape[1], height / slide.mask.shape[0]
    x = (np.arange(mask.shape[1]) - 0.5) * scale_x - 0.5
    y = (np.arange(mask.shape[0]) - 0.5) * scale_y - 0.5
    if slide.mask.any():
        axis.contour(x, y, mask, levels=[0.5], colors=style.BLUE, linewidths=1.1)
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)
    name = slide.name if len(slide.name) <= 16 else f"{slide.name[:15]}…"
    axis.set_title(f"{name}\n{slide.tissue_mm2:.1f} mm²", fontsize=8, fontweight="normal")
