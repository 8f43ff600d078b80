"""Examples of accepted and rejected tiles, for the report and for looking at one slide."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from midnight.atomic import atomic_path
from midnight.config.pipeline import Tissue
from midnight.config.recipe import Tiles
from midnight.errors import MidnightError
from midnight.outputs import check_file, png_by, sign_png
from midnight.slides.files import files_of
from midnight.tiles.draw.hsv_filter import fraction
from midnight.tiles.draw.positions import random_position
from midnight.tiles.draw.rng import Purpose, generator
from midnight.tiles.draw.sampler import TileSampler
from midnight.tiles.read.reader import SlideReader, Tile
from midnight.tissue.index import read_index, training_slides
from midnight.tissue.maskfile import masks_path
from midnight.tissue.resolution import SlideError
from midnight.tissue.shard import SlideRow, segment_slide

ACCEPTED, FOREGROUND, HSV = "accepted", "foreground", "hsv"
# Candidates looked at per example asked for: where a reason is rarer than that, there are fewer examples of it.
EFFORT = 20


@dataclass(frozen=True)
class Example:
    """A candidate tile and what became of it.

    tile: RGB uint8 [size, size, 3]; accepted; reason: "accepted", "foreground" (too little tissue) or "hsv";
    fraction: share of pixels within the HSV ranges (1 without a filter); foreground: share of tissue; mpp in µm/px;
    x, y: upper left corner in level-0 px.
    """

    tile: Tile
    accepted: bool
    reason: str
    fraction: float
    foreground: float
    slide_id: str
    mpp: float
    x: int
    y: int


def draw_examples(index: Path, tiles: Tiles, n: int, seed: int) -> list[Example]:
    """At most `n` candidates from a cohort: half of them accepted, a quarter rejected for each reason.

    Where one kind is rare there are fewer of it. Accepted ones come first, and each kind in the order drawn.

    Args:
        index: tissue index.
        tiles: the recipe's settings.
        n: number of examples.
        seed: the same seed gives the same examples.

    Raises:
        MidnightError: the index has no slide that can give tiles.
    """
    return _draw(TileSampler({"examples": (training_slides(Path(index)), 1.0)}, tiles), n, seed)


def slide_examples(
    path: Path, tissue: Tissue, tiles: Tiles, n: int, seed: int, mpp: float | None = None
) -> list[Example]:
    """The same for a single slide, whose tissue is found first; `mpp` (µm/px) as a manifest would give it.

    Raises:
        MidnightError: the slide can't be used; the reason is that of its quarantine.
    """
    record = segment_slide(SlideRow(path.stem, str(path), "ok", "", mpp), tissue)
    if not record.ok:
        raise MidnightError(f"{path}: {record.reason}")
    return _draw(TileSampler({str(path): ([record], 1.0)}, tiles), n, seed)


def _draw(sampler: TileSampler, n: int, seed: int) -> list[Example]:
    room = {ACCEPTED: (n + 1) // 2, HSV: (n // 2 + 1) // 2, FOREGROUND: n // 2 // 2}
    found: dict[str, list[Example]] = {reason: [] for reason in room}
    with SlideReader(sampler.tiles.max_open_slides, sampler.patience) as reader:
        for number in range(n * EFFORT):
            kept = _candidate(sampler, reader, generator(seed, number, Purpose.EXAMPLES))
            if kept is not None and len(found[kept.reason]) < room[kept.reason]:
                found[kept.reason].append(kept)
            if all(len(found[reason]) == room[reason] for reason in room):
                break
    return [example for examples in found.values() for example in examples]


def _candidate(sampler: TileSampler, reader: SlideReader, rng: np.random.Generator) -> Example | None:
    """One position, every second time with enough tissue, since most of a slide has none; None if unreadable."""
    choice = sampler.draw_slide(rng)
    anywhere = rng.integers(2)
    position = random_position(rng, choice.window) if anywhere else sampler.draw_position(rng, choice)
    if position is None:
        return None
    record, window = sampler.slides[choice.slide], choice.window
    try:
        tile = reader.read(record, window, *position)
    except SlideError:
        return None
    share = sampler.share(choice, *position)
    ranges = sampler.tiles.hsv_filter
    passing = fraction(tile, ranges) if ranges else 1.0
    reason = ACCEPTED
    if share < sampler.tiles.foreground:
        reason = FOREGROUND
    elif ranges and passing < ranges.min_fraction:
        reason = HSV
    x, y = window.origin(*position)
    return Example(tile, reason == ACCEPTED, reason, passing, share, record.slide_id, window.mpp, x, y)


COLOURS = {ACCEPTED: (32, 120, 72), FOREGROUND: (110, 114, 126), HSV: (176, 60, 46)}
CAPTION = 58
COMMAND = "midnight tiles show"
GAP = 12


def write_sheet(
    source: Path,
    tiles: Tiles,
    n: int,
    seed: int,
    output: Path,
    tissue: Tissue | None = None,
    columns: int = 6,
    mpp: float | None = None,
) -> list[Example]:
    """Write a contact sheet (PNG) of candidates: each with its verdict, shares, slide, µm/px and place.

    Args:
        source: a slide, or a tissue index (`.parquet`) for candidates from all of a cohort.
        tiles: the recipe's settings.
        n: number of candidates.
        seed: the same seed gives the same sheet.
        output: the PNG to write.
        tissue: how the tissue of a single slide is found; the defaults if None.
        columns: candidates in a row.
        mpp: µm/px of a single slide, which comes before what the slide states.

    Returns:
        The candidates on the sheet.

    Raises:
        MidnightError: the slide or index can't be used, nothing could be drawn, or the file can't be written.
    """
    source = Path(source)
    indexed = source.suffix == ".parquet"
    if indexed:
        examples = draw_examples(source, tiles, n, seed)
    else:
        examples = slide_examples(source, tissue or Tissue(), tiles, n, seed, mpp)
    if not examples:
        raise MidnightError(f"{source}: no candidate tile could be read; nothing to show")
    with atomic_path(output) as temporary:
        _, data = cv2.imencode(".png", cv2.cvtColor(draw_sheet(examples, columns), cv2.COLOR_RGB2BGR))
        temporary.write_bytes(sign_png(bytes(data), COMMAND))
    return examples


def check_sheet(output: Path, source: Path, force: bool) -> None:
    """Refuse to write a sheet over anything but a sheet.

    Raises:
        MidnightError: `output` is one of the files that are read, or something else and not to be replaced (`force`).
    """
    check_file(Path(output), _files_read(Path(source)), png_by(COMMAND), force)


def _files_read(source: Path) -> Iterator[str | Path]:
    yield from files_of(source)
    if source.suffix == ".parquet" and source.is_file():
        yield masks_path(source)
        for record in read_index(source):
            yield from files_of(Path(record.path))


def draw_sheet(examples: Sequence[Example], columns: int = 6) -> npt.NDArray[np.uint8]:
    """The contact sheet of at least one candidate, RGB uint8 [h, w, 3]."""
    cells = [_cell(example) for example in examples]
    columns = min(columns, len(cells))
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[first : first + columns]) for first in range(0, len(cells), columns)])


def _cell(example: Example, side: int = 256) -> npt.NDArray[np.uint8]:
    cell = np.full((side + CAPTION + GAP, side + GAP, 3), 255, np.uint8)
    shrink = example.tile.shape[0] > side
    tile = cv2.resize(example.tile, (side, side), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_NEAREST)
    cell[:side, :side] = tile
    colour = COLOURS[example.reason]
    cv2.rectangle(cell, (0, 0), (side - 1, side - 1), colour, 3)
    verdict = "accepted" if example.accepted else f"rejected: {example.reason}"
    lines = (
        (f"{verdict}  hsv {example.fraction:.2f}  tissue {example.foreground:.2f}", colour),
        (f"{example.mpp:g} um/px  x {example.x}  y {example.y}", (60, 60, 66)),
        (example.slide_id[:40], (60, 60, 66)),
    )
    for number, (text, ink) in enumerate(lines):
        cv2.putText(cell, text, (2, side + 16 + 17 * number), cv2.FONT_HERSHEY_SIMPLEX, 0.4, ink, 1, cv2.LINE_AA)
    return cell
