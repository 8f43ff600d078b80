"""The tissue quality page: thumbnails with mask outlines, areas, and the slides that are left out, as one HTML file."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import numpy.typing as npt

from midnight.atomic import write_text
from midnight.tissue.index import TissueRecord, read_index
from midnight.tissue.mask import Mask
from midnight.tissue.resolution import STANDARD_MPPS

# A page of 12,000 thumbnails would be 100 MB: this many are shown.
MOST_SHOWN = 240
BINS = 24
OUTLINE = (22, 120, 70)
# Longer side of a thumbnail on the page, px.
SIDE = 360


def write_page(index: Path, output: Path, cohort: str) -> None:
    """Write the quality page of a cohort: one HTML file that needs nothing else.

    Args:
        index: the cohort's tissue index.
        output: the file to write.
        cohort: its name, for the title.

    Raises:
        MidnightError: the index can't be read or the page can't be written.
    """
    loader = jinja2.PackageLoader("midnight.tissue", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = environment.get_template("tissue.html.j2")
    write_text(output, page.render(cohort=cohort, **_content(read_index(Path(index)))))


def _content(records: Sequence[TissueRecord]) -> dict[str, Any]:
    usable = [record for record in records if record.ok]
    areas = np.array([record.tissue_mm2 for record in usable])
    drawable = [record for record in records if record.mask_width]
    return {
        "usable": len(usable),
        "quarantined": [record for record in records if not record.ok],
        "total_mm2": _number(float(areas.sum())),
        "median_mm2": _number(float(np.median(areas)) if usable else 0.0),
        "largest_mm2": _number(float(areas.max()) if usable else 0.0),
        "histogram": _histogram(areas) if usable else [],
        "mpps": _mpps(usable),
        "with_thumbnail": len(drawable),
        "shown": [_slide(record) for record in choose(drawable, MOST_SHOWN)],
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _histogram(areas: npt.NDArray[np.float64]) -> list[dict[str, Any]]:
    counts, edges = np.histogram(areas, bins=BINS, range=(0, float(areas.max()) or 1.0))
    return [
        {
            "percent": round(100 * int(count) / int(counts.max()), 1),
            "label": f"{_number(edges[i])} to {_number(edges[i + 1])} mm²: {count}",
        }
        for i, count in enumerate(counts)
    ]


def _mpps(usable: Sequence[TissueRecord]) -> list[dict[str, Any]]:
    counts = {mpp: sum(mpp in record.mpps for record in usable) for mpp in STANDARD_MPPS}
    return [
        {"mpp": f"{mpp:g}", "count": count, "percent": round(100 * count / max(1, len(usable)), 1)}
        for mpp, count in counts.items()
    ]


def choose(records: Sequence[TissueRecord], most: int) -> list[TissueRecord]:
    """At most `most` records, evenly from the least to the most tissue: outliers at both ends are always among them."""
    ordered = sorted(records, key=lambda record: (record.tissue_mm2, record.slide_id))
    if len(ordered) <= most:
        return ordered
    return [ordered[number] for number in np.linspace(0, len(ordered) - 1, most).round().astype(int)]


def _slide(record: TissueRecord) -> dict[str, Any]:
    image = decode(record.thumbnail())
    return {
        "ok": record.ok,
        "name": record.slide_id,
        "reason": record.reason,
        "area": _number(record.tissue_mm2),
        "mpp": f"{record.mpp:.4g}",
        "mpp_source": record.mpp_source,
        "size": f"{record.width:,} × {record.height:,} px",
        "source": data_url(outlined(image, record.mask())),
    }


def decode(jpeg: bytes) -> npt.NDArray[np.uint8]:
    """A JPEG's bytes as RGB uint8 [h, w, 3]."""
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(np.asarray(image), cv2.COLOR_BGR2RGB), np.uint8)


def outlined(image: npt.NDArray[np.uint8], mask: Mask) -> npt.NDArray[np.uint8]:
    """The image, at most 360 px, with the outline of a mask that covers the same ground in any number of pixels."""
    scale = SIDE / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    out = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    small = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR) > 127
    contours, _ = cv2.findContours(small.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(out, contours, -1, OUTLINE, 2, cv2.LINE_AA), np.uint8)


def data_url(image: npt.NDArray[np.uint8]) -> str:
    """An RGB image as a JPEG data URL."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82])
    return "data:image/jpeg;base64," + base64.b64encode(bytes(data)).decode()
