"""Large slides as Aperio writes them, generated in seconds.

One piece of drawn tissue is encoded as JPEG tiles once per level and laid out over the whole plane, with glass
around an irregular blob. So the tiles repeat, but each copy has its own place in the file, as on a real slide.

Faint noise is added to the drawing, since the bytes of a tile are what its decoding costs: without it tissue tiles
hold 5–9 kB, with it 10–12 kB per 256 px tile at quality 75 (real tiles of CMU-1: 10–24 kB per 240 px tile).
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile

from midnight.atomic import atomic_path
from midnight.demo.parallel import run_all
from midnight.demo.slides import draw_image
from midnight.demo.svs import Scanner, describe

from .jpegs import encode, split

Image = npt.NDArray[np.uint8]
Grid = npt.NDArray[np.bool_]

MPP = 0.25
DOWNSAMPLES = (1, 4, 16)
# Tiles per side of the drawn piece at level 0: a multiple of the coarsest downsample.
PERIOD = 16
# The drawing is larger than what is cut from its middle, so that tissue goes on over the seams.
MARGIN = 1.25
VERSION = 2
# The corner of a drawing that is always glass, px.
GLASS = 64


@dataclass(frozen=True)
class Plan:
    """One slide: side in px, side of its JPEG tiles in px, seed, JPEG quality, noise in levels (of tissue)."""

    size: int
    tile: int
    seed: int
    quality: int = 75
    noise: float = 4.0
    version: int = VERSION

    @property
    def name(self) -> str:
        """File name, with a digest of the settings: a slide that is there already is used again."""
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:10]
        return f"bench-{self.size}-{self.tile}-{digest}.svs"


def default_folder() -> Path:
    """Where the slides are kept between runs unless --data says otherwise."""
    return Path(tempfile.gettempdir()) / "midnight-benchmark"


def make_slides(folder: Path, plans: list[Plan]) -> list[Path]:
    """The slides of the plans, generated where they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / plan.name for plan in plans]
    missing = [(path, plan) for plan, path in zip(plans, paths, strict=True) if not path.exists()]
    if missing:
        run_all(write_slide, missing, "slides", "slide")
    return paths


def write_slide(path: Path, plan: Plan) -> None:
    """Write one slide, atomically: levels 1, 4 and 16, JPEG 4:2:0 with abbreviated streams, a striped thumbnail."""
    rng = np.random.Generator(np.random.Philox(key=[plan.seed, 77]))
    picture, glass = draw_piece(rng, plan)
    cells = tissue_cells(rng, -(-plan.size // (PERIOD * plan.tile)))
    text = describe(Scanner(MPP, 40, plan.tile, "SS0000"), plan.size, plan.size).replace("Q=80", f"Q={plan.quality}")
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=False) as writer:
        for downsample in DOWNSAMPLES:
            note = text if downsample == 1 else f"{text.split(' [')[0]} -> {plan.size // downsample} JPEG/RGB"
            _write_level(writer, picture, glass, cells, plan, downsample, note)
            if downsample == 1:
                _write_thumbnail(writer, picture, plan, text)


def draw_piece(rng: np.random.Generator, plan: Plan) -> tuple[Image, Image]:
    """Tissue and glass with noise at 0.25 µm/px: RGB uint8 [side, side, 3], side = 16 tiles, and one tile of glass."""
    side = PERIOD * plan.tile
    _, image = draw_image(rng, round(MARGIN * side), MPP)
    noise = rng.normal(0, plan.noise, image.shape[:2]).astype(np.float32)
    # Glass is bright, and scanners clip it: less noise there.
    noise *= np.clip((255 - image.min(axis=2)) / 60, 0.25, 1)
    image = np.clip(image + np.rint(noise)[..., None], 0, 255).astype(np.uint8)
    first = (image.shape[0] - side) // 2
    return image[first : first + side, first : first + side], _tiled(image[:GLASS, :GLASS], plan.tile)


def _tiled(glass: Image, tile: int) -> Image:
    times = -(-tile // GLASS)
    return np.ascontiguousarray(np.tile(glass, (times, times, 1))[:tile, :tile])


def tissue_cells(rng: np.random.Generator, count: int) -> Grid:
    """Which cells of a [count, count] grid hold tissue: a disc of about half the area with a ragged edge."""
    centre = (count - 1) / 2
    y, x = np.mgrid[:count, :count] - centre
    reach = 0.42 * count * rng.uniform(0.9, 1.1, (count, count))
    found: Grid = np.hypot(x, y) <= np.maximum(reach, 0.6)
    return found


def _write_level(
    writer: tifffile.TiffWriter, picture: Image, glass: Image, cells: Grid, plan: Plan, downsample: int, note: str
) -> None:
    small: Image = cv2.resize(picture, None, fx=1 / downsample, fy=1 / downsample, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    side, period = plan.size // downsample, range(PERIOD // downsample)
    tissue = [[encode(_part(small, row, column, plan.tile), plan.quality) for column in period] for row in period]
    tables, empty = split(encode(glass, plan.quality))
    streams = [[split(data)[1] for data in row] for row in tissue]
    options: dict[str, Any] = {"photometric": "ycbcr", "subsampling": (2, 2), "compression": "jpeg", "metadata": None}
    options |= {"tile": (plan.tile, plan.tile), "jpegtables": tables, "software": False, "description": note}
    placed = _laid_out(streams, empty, cells, -(-side // plan.tile))
    writer.write(placed, shape=(side, side, 3), dtype=np.uint8, **options)


def _part(image: Image, row: int, column: int, tile: int) -> Image:
    return np.ascontiguousarray(image[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile])


def _laid_out(tissue: list[list[bytes]], glass: bytes, cells: Grid, count: int) -> Iterator[bytes]:
    """The streams of a level of count × count tiles, row by row."""
    period = len(tissue)
    for row in range(count):
        for column in range(count):
            inside = cells[row // period, column // period]
            yield tissue[row % period][column % period] if inside else glass


def _write_thumbnail(writer: tifffile.TiffWriter, picture: Image, plan: Plan, text: str) -> None:
    small = cv2.resize(picture, (256, 256), interpolation=cv2.INTER_AREA)
    note = f"Aperio Image Library v12.0.15 \r\n{plan.size}x{plan.size} -> 256x256 - " + text.split("|", 1)[1]
    options: dict[str, Any] = {"photometric": "rgb", "subsampling": (2, 2), "compression": "jpeg", "metadata": None}
    writer.write(small, rowsperstrip=16, description=note, software=False, **options)
