"""Accepted tiles: the sampler's positions, read and passed through the HSV filter.

**Attempts.** After a rejected tile the position is drawn anew on the same slide at the same mpp, up to 16 times, so
that slides and mpps keep the shares that the sampler gives them even where the filter rejects much; then another
slide is drawn. Each such attempt has a generator of its own, so attempt 2 does not depend on how attempt 1 ended.

**Slides that can't be opened** (vanished, cut off) are left out by the process that finds them so, and recorded once
for the run (see `midnight.tiles.draw.lost_slides`). Samples that would have come from such a slide come from their next
attempt; all others stay what they were. What may pass by itself is waited for (see `midnight.outages`).

**Positions that can't be read** are rejected like those that fail the HSV filter. The first time that a process meets
one on a slide, it probes the slide at positions that depend on the slide alone, so that every process finds the same.
If more than `tiles.max_damaged` of them can't be read either, the slide counts as left out, and a sample that meets
damage on it goes to another slide at once. A sample that meets none keeps its tile: it can't know of the damage, and
would not be the same in a process that does.

So while no file changes, sample i is a function of (seed, i) alone, whatever is damaged.
"""

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np

from midnight.errors import MidnightError
from midnight.tiles.draw.drawn import DrawnTile
from midnight.tiles.draw.hsv_filter import passes
from midnight.tiles.draw.lost_slides import LostSlide, Quarantine
from midnight.tiles.draw.rng import Generators, Purpose
from midnight.tiles.draw.sampler import Choice, TileSampler
from midnight.tiles.read.reader import SlideReader, Tile
from midnight.tissue.resolution import DamagedError, SlideError

log = logging.getLogger(__name__)

# Positions tried on one slide at one mpp before another slide is drawn, and slides tried before giving up.
POSITION_TRIES = 16
SLIDE_TRIES = 64

HSV, DAMAGED = "hsv", "damaged"

Found = TypeVar("Found")


class TooDamagedError(Exception):
    """Too many positions of a slide can't be read."""


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
        self._too_damaged: dict[int, bool] = {}
        self._in_a_row: Counter[int] = Counter()
        self.rejected: Counter[str] = Counter()
        """Positions that were rejected, by reason: "hsv" or "damaged"."""

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
        self._quarantine.flush(self.reader.free_handles)
        for attempt in range(SLIDE_TRIES):
            rng = self.generators.at(purpose, index, attempt)
            choice = self.sampler.draw_slide(rng)
            if choice.slide in self._lost:
                continue
            try:
                found = take(rng, choice, attempt)
            except TooDamagedError:
                continue
            except SlideError as error:
                self._lost.add(choice.slide)
                self._quarantine.add(self._entry(choice.slide, str(error)), self.reader.free_handles)
            else:
                if found is not None:
                    return found
        raise MidnightError(self._nothing_found())

    def accept(self, rng: np.random.Generator, choice: Choice) -> tuple[Tile, tuple[int, int]] | None:
        """An accepted tile of a slide and its place on the window's grid; None after 16 rejected ones.

        Raises:
            SlideError: the slide can't be opened.
            TooDamagedError: most of it can't be read.
        """
        record = self.sampler.slides[choice.slide]
        for _ in range(POSITION_TRIES):
            position = self.sampler.draw_position(rng, choice)
            if position is None:
                return None
            pixels = self.undamaged(choice, partial(self.reader.read, record, choice.window, *position))
            if pixels is not None and self.passes(pixels):
                return pixels, position
        return None

    def passes(self, pixels: Tile) -> bool:
        """Whether a tile passes the HSV filter; one that doesn't is counted."""
        if passes(pixels, self.sampler.tiles.hsv_filter):
            return True
        self.rejected[HSV] += 1
        return False

    def undamaged(self, choice: Choice, read: Callable[[], Found], positions: int = 1) -> Found | None:
        """What `read` finds on a slide; None where it can't be read there, and so many positions are counted.

        Raises:
            TooDamagedError: nor can most of the slide.
            SlideError: the slide can't be opened.
        """
        try:
            found = read()
        except DamagedError as error:
            reason = str(error)
        except MidnightError:
            raise
        except Exception as error:
            # Nothing that one odd file does to a decoder may end the run; the log has the traceback.
            if choice.slide not in self._too_damaged:
                log.exception("slide %s", self.sampler.slides[choice.slide].slide_id)
            reason = f"{type(error).__name__}: {error}"
        else:
            if self._in_a_row:
                self._in_a_row.pop(choice.slide, None)
            return found
        self.rejected[DAMAGED] += positions
        self._judge(choice.slide, reason)
        return None

    def _judge(self, slide: int, reason: str) -> None:
        """Raise TooDamagedError if most of the slide can't be read: probed once, and again after 16 vain reads."""
        self._in_a_row[slide] += 1
        known = self._too_damaged.get(slide)
        if known is None or (not known and self._in_a_row[slide] > POSITION_TRIES):
            self._in_a_row[slide] = 0
            bad, of = self._probe(slide)
            self._too_damaged[slide] = bad > self.sampler.tiles.max_damaged * of
            entry = self._entry(slide, f"{reason} ({bad} of {of} positions probed can't be read)")
            add = self._quarantine.add if self._too_damaged[slide] else self._quarantine.add_damaged
            add(entry, self.reader.free_handles)
        if self._too_damaged[slide]:
            raise TooDamagedError

    def _probe(self, slide: int) -> tuple[int, int]:
        """How many of some positions of a slide can't be read; the same ones whenever and wherever it is asked."""
        bad = of = 0
        for number in range(self.sampler.tiles.damage_probes):
            rng = self.generators.at(Purpose.DAMAGE, slide, number)
            choice = self.sampler.choice_of(slide, rng.random())
            position = self.sampler.draw_position(rng, choice)
            if position is not None:
                of += 1
                bad += not self._readable(choice, position)
        return bad, of

    def _readable(self, choice: Choice, position: tuple[int, int]) -> bool:
        try:
            self.reader.read(self.sampler.slides[choice.slide], choice.window, *position)
        except DamagedError:
            return False
        except MidnightError:
            raise
        except Exception:  # of a decoder, as in `undamaged`, where the log has the traceback
            log.debug("slide %s", self.sampler.slides[choice.slide].slide_id, exc_info=True)
            return False
        return True

    def _tile(self, rng: np.random.Generator, choice: Choice, attempt: int) -> DrawnTile | None:
        found = self.accept(rng, choice)
        return drawn_tile(found[0], choice, *found[1]) if found else None

    def _entry(self, slide: int, reason: str) -> LostSlide:
        record = self.sampler.slides[slide]
        cohort = self.sampler.cohorts[self.sampler.cohort_of[slide]]
        return LostSlide(record.slide_id, cohort, record.path, reason)

    def _nothing_found(self) -> str:
        lost = len(self._lost) + sum(self._too_damaged.values())
        bad = f"; {lost} slides can't be read (see the log)" if lost else ""
        return (
            f"no tile was accepted on {SLIDE_TRIES} slides drawn one after the other, up to {POSITION_TRIES} positions "
            f"each{bad}; check the tissue page, or lower tiles.foreground or tiles.hsv_filter.min_fraction"
        )

    def close(self) -> None:
        """Close all slides; write what could not be recorded before."""
        self.reader.close()
        self._quarantine.flush(at_once=True)


def drawn_tile(pixels: Tile, choice: Choice, column: int, row: int) -> DrawnTile:
    """The tile at a position of the choice's window."""
    return DrawnTile(pixels, choice.slide, choice.cohort, choice.window.mpp, *choice.window.origin(column, row))
