"""Accepted tiles: the sampler's positions, read and passed through the HSV filter.

**Attempts.** After a rejected tile the position is drawn anew on the same slide at the same mpp, up to 16 times, so
that slides and mpps keep the shares that the sampler gives them even where the filter rejects much; then another
slide is drawn. Each such attempt has a generator of its own, so attempt 2 does not depend on how attempt 1 ended.

**Slides that can't be read** (vanished, cut off, damaged) are left out by the process that finds them so, and
recorded once for the run (see `midnight.tiles.quarantine`). Samples that would have come from such a slide come from
their next attempt; all others stay what they were. While no file changes, sample i is a function of (seed, i) alone;
this holds too where slides are unreadable as a whole. Only of a slide that is damaged in parts does it depend on the
process whether tiles of the good parts still come: they do until it first meets the damage.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from midnight.errors import MidnightError
from midnight.tiles.drawn import DrawnTile
from midnight.tiles.hsv_filter import passes
from midnight.tiles.quarantine import LostSlide, Quarantine
from midnight.tiles.reader import SlideReader, Tile
from midnight.tiles.rng import Generators, Purpose
from midnight.tiles.sampler import Choice, TileSampler
from midnight.tissue.resolution import SlideError

log = logging.getLogger(__name__)

# Positions tried on one slide at one mpp before another slide is drawn, and slides tried before giving up.
POSITION_TRIES = 16
SLIDE_TRIES = 64

Found = TypeVar("Found")


class TileDrawer:
    """Draws accepted tiles, each by its number."""

    def __init__(
        self, sampler: TileSampler, reader: SlideReader, seed: int, quarantine: Quarantine | None = None
    ) -> None:
        self.sampler = sampler
        self.reader = reader
        self.generators = Generators(seed)
        self._quarantine = quarantine or Quarantine()
        self._lost: set[int] = set()

    def draw(self, index: int) -> DrawnTile:
        """The tile of sample `index`.

        Raises:
            MidnightError: no tile of 64 slides was accepted.
        """
        return self.attempt(index, Purpose.PLACE, self._tile)

    def attempt(
        self, index: int, purpose: Purpose, take: Callable[[np.random.Generator, Choice, int], Found | None]
    ) -> Found:
        """What `take` (of a generator, a slide at an mpp, the attempt's number) finds on the first slide that has it.

        Raises:
            MidnightError: nothing was found on 64 slides.
        """
        for attempt in range(SLIDE_TRIES):
            rng = self.generators.at(purpose, index, attempt)
            choice = self.sampler.draw_slide(rng)
            if choice.slide in self._lost:
                continue
            try:
                found = take(rng, choice, attempt)
            except SlideError as error:
                self._leave_out(choice, str(error))
            except MidnightError:
                raise
            except Exception as error:
                # Nothing that one odd file does to a decoder may end the run; the log has the traceback.
                log.exception("slide %s", self.sampler.slides[choice.slide].slide_id)
                self._leave_out(choice, f"{type(error).__name__}: {error}")
            else:
                if found is not None:
                    return found
        raise MidnightError(self._nothing_found())

    def accept(self, rng: np.random.Generator, choice: Choice) -> tuple[Tile, tuple[int, int]] | None:
        """An accepted tile of a slide and its place on the window's grid; None after 16 rejected ones.

        Raises:
            SlideError: the slide can't be read.
        """
        record = self.sampler.slides[choice.slide]
        for _ in range(POSITION_TRIES):
            position = self.sampler.draw_position(rng, choice)
            if position is None:
                return None
            pixels = self.reader.read(record, choice.window, *position)
            if passes(pixels, self.sampler.tiles.hsv_filter):
                return pixels, position
        return None

    def _tile(self, rng: np.random.Generator, choice: Choice, attempt: int) -> DrawnTile | None:
        found = self.accept(rng, choice)
        return drawn_tile(found[0], choice, *found[1]) if found else None

    def _leave_out(self, choice: Choice, reason: str) -> None:
        self._lost.add(choice.slide)
        record = self.sampler.slides[choice.slide]
        self._quarantine.add(LostSlide(record.slide_id, self.sampler.cohorts[choice.cohort], record.path, reason))

    def _nothing_found(self) -> str:
        bad = f"; {len(self._lost)} slides can't be read (see the log)" if self._lost else ""
        return (
            f"no tile was accepted on {SLIDE_TRIES} slides drawn one after the other, up to {POSITION_TRIES} positions "
            f"each{bad}; check the tissue page, or lower tiles.foreground or tiles.hsv_filter.min_fraction"
        )

    def close(self) -> None:
        """Close all slides."""
        self.reader.close()


def drawn_tile(pixels: Tile, choice: Choice, column: int, row: int) -> DrawnTile:
    """The tile at a position of the choice's window."""
    return DrawnTile(pixels, choice.slide, choice.cohort, choice.window.mpp, *choice.window.origin(column, row))
