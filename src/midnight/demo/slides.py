"""The demo's cohort: slides with exact truth, as the loopback GDC service offers them."""

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from midnight.atomic import atomic_path, write_json
from midnight.demo.beer_lambert import add_grain, colourise, draw_stain
from midnight.demo.classes import PALETTE, TissueClass
from midnight.demo.ink import draw_ink
from midnight.demo.layout import draw_slide
from midnight.demo.noise import Bytes
from midnight.demo.parallel import run_all
from midnight.demo.render import render
from midnight.demo.scene import build_scene
from midnight.demo.svs import Scanner, write_svs
from midnight.errors import MidnightError
from midnight.hashing import hash_file

MAP_MPP = 8
"""µm per pixel of the class map and the tissue mask."""

PROJECTS = ("DEMO-BRCA", "DEMO-COAD", "DEMO-LUAD")
TRUNCATED_SHARE = 0.6
SMALLEST = 1024
LOW_POWER = 1
INKED = 2


@dataclass(frozen=True)
class SlideJob:
    """One slide to write: its place in the cohort and the cohort's seed."""

    folder: Path
    index: int
    size: int
    seed: int


def write_slides(folder: Path, n: int, size: int, seed: int) -> None:
    """Write the demo's cohort: the same files, byte for byte, for the same arguments.

    Per slide `{name}.svs`, the class map `{name}.classes.png` (palette; pixel values of `TissueClass`, 8 µm/px) and the
    tissue mask `{name}.tissue.png` (255 = tissue, which is everything but background; 8 µm/px); then `catalogue.json`,
    in which the service has only a part of the second to last slide and the last has a wrong md5sum. The second
    slide is scanned at 0.5 µm/px, the others at 0.25; the third has pen marks.

    Args:
        folder: where to.
        n: slides.
        size: side of a slide, px.
        seed: of everything.

    Raises:
        MidnightError: the folder can't be written, or there is nothing to write.
    """
    if n < 1 or size < SMALLEST:
        raise MidnightError(f"demo: {n} slides of {size} px can't be made, need at least 1 of {SMALLEST} px")
    jobs = [SlideJob(Path(folder), index, size, seed) for index in range(n)]
    rows = run_all(write_slide, [(job,) for job in jobs], "demo slides", "slide")
    write_json(Path(folder) / "catalogue.json", damage(rows))


def damage(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The catalogue with two bad entries: one slide of which only a part is left, one whose md5sum does not fit."""
    if len(rows) > 1:
        rows[-2]["stored"] = int(rows[-2]["file_size"] * TRUNCATED_SHARE)
    rows[-1]["md5sum"] = hashlib.md5(rows[-1]["md5sum"].encode(), usedforsecurity=False).hexdigest()
    return rows


def write_slide(job: SlideJob) -> dict[str, Any]:
    """Draw and write one slide with its truth; returns its row of the catalogue."""
    rng = np.random.Generator(np.random.Philox(key=[job.seed, job.index]))
    row = _identity(job)
    scanner = _scanner(rng, job.index)
    path = job.folder / row["file_name"]
    classes, image = draw_image(rng, job.size, scanner.mpp)
    if job.index == INKED:
        draw_ink(rng, image, scanner.mpp)
    write_svs(path, image, scanner)
    write_truth(path, classes)
    return row | {"md5sum": hash_file(path, "md5"), "file_size": path.stat().st_size}


def draw_image(rng: np.random.Generator, size: int, mpp: float) -> tuple[Bytes, Bytes]:
    """A slide of `size` px: its class map (uint8, 1 µm/px) and its picture (uint8 [size, size, 3], RGB)."""
    side = int(np.ceil(size * mpp))
    classes = draw_slide(rng, (side, side))
    planes = render(build_scene(rng, classes), mpp, blur=rng.uniform(0.5, 0.9))[:, :size, :size]
    image = colourise(planes[0], planes[1], draw_stain(rng))
    add_grain(rng, image)
    return classes, image


def write_truth(path: Path, classes: Bytes) -> None:
    """Write the class map and the tissue mask beside a slide.

    Args:
        path: the slide's path.
        classes: uint8 [h, w] of `TissueClass`, 1 µm/px.
    """
    from PIL import Image

    small = np.ascontiguousarray(classes[MAP_MPP // 2 :: MAP_MPP, MAP_MPP // 2 :: MAP_MPP])
    picture = Image.fromarray(small, "P")
    picture.putpalette([level for value in TissueClass for level in PALETTE[value]])
    mask = Image.fromarray(np.where(small == TissueClass.BACKGROUND, 0, 255).astype(np.uint8))
    for name, image in (("classes", picture), ("tissue", mask)):
        with atomic_path(path.with_name(f"{path.name.removesuffix('.svs')}.{name}.png")) as temporary:
            image.save(temporary, format="PNG")


def _identity(job: SlideJob) -> dict[str, Any]:
    """Names as in the GDC, but plainly made up; two slides of every third case."""
    rng = np.random.Generator(np.random.Philox(key=[job.seed, 1_000_000 + job.index]))
    case, slide = divmod(job.index, 3)
    case, slide = (2 * case, slide) if slide < 2 else (2 * case + 1, 0)
    case_id = f"DEMO-A{1 + case % 9}-{1 + case:04d}"
    name = f"{case_id}-01Z-00-DX{1 + slide}.{str(uuid.UUID(bytes=rng.bytes(16), version=4)).upper()}.svs"
    return {
        "file_id": str(uuid.UUID(bytes=rng.bytes(16), version=4)),
        "file_name": name,
        "md5sum": "",
        "file_size": 0,
        "project_id": PROJECTS[case % len(PROJECTS)],
        "case_id": case_id,
        "sample_type": "Primary Tumor",
        "experimental_strategy": "Diagnostic Slide",
        "truncate_to": None,
        "stored": None,
    }


def _scanner(rng: np.random.Generator, index: int) -> Scanner:
    mpp, power = (0.5, 20) if index == LOW_POWER else (0.25, 40)
    return Scanner(mpp, power, (240, 256)[index % 2], f"SS{int(rng.integers(1000, 9999))}")
