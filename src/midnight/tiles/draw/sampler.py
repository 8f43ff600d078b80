"""Which slide, which resolution, which position: the distribution of the tiles.

A cohort by its share, a slide of it (uniform or by tissue area), one of the slide's usable mpps (by weight), and a
position, uniform over those of the read level's grid whose tile holds enough tissue [Midnight].
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from midnight.config import choose
from midnight.config.recipe import Tiles
from midnight.errors import MidnightError
from midnight.outages import Patience
from midnight.tiles.draw.foreground import MaskCache, MaskView
from midnight.tiles.draw.positions import Blocks, draw_from_blocks, find_blocks, position_share, try_positions
from midnight.tiles.read.reader import Window, plan
from midnight.tissue.index import TissueRecord
from midnight.tissue.resolution import has_mpp

# Blocks of valid positions that are kept: of slides with very little tissue only.
MAX_BLOCKS_KEPT = 32


@dataclass(frozen=True)
class Choice:
    """A slide (its number among all of the sampler's) and the window by which its tiles are read."""

    slide: int
    cohort: int
    window: Window


def weights_of_mpps(tiles: Tiles) -> list[float]:
    """The weight of each of `tiles.mpps`.

    Raises:
        MidnightError: there are not as many weights as mpps, or all are 0.
    """
    weights = list(tiles.mpp_weights or [1.0] * len(tiles.mpps))
    if len(weights) != len(tiles.mpps) or sum(weights) <= 0:
        raise MidnightError(
            f"tiles.mpp_weights: needs {len(tiles.mpps)} weights, one per entry of tiles.mpps, not all 0; got {weights}"
        )
    return weights


def windows_of(record: TissueRecord, tiles: Tiles) -> list[tuple[Window, float]]:
    """The windows that a slide can give under a recipe, each with its weight.

    An mpp finer than the slide's is left out unless `tiles.upsample`; so is one at which no tile fits.
    """
    wanted = [
        (plan(record, tiles.size, mpp), weight)
        for mpp, weight in zip(tiles.mpps, weights_of_mpps(tiles), strict=True)
        if weight > 0 and (tiles.upsample or has_mpp(record.mpp, mpp))
    ]
    return [(window, weight) for window, weight in wanted if window is not None]


class TileSampler:
    """Draws slides and positions; all randomness comes from the generator that each call is given."""

    def __init__(self, cohorts: Mapping[str, tuple[Sequence[TissueRecord], float]], tiles: Tiles) -> None:
        """Keep the slides that can give tiles.

        Args:
            cohorts: name: (its slides, its share of the tiles; shares need not add up to 1).
            tiles: the recipe's settings.

        Raises:
            MidnightError: a cohort with a share has no slide that can give a tile.
        """
        self.tiles = tiles
        self.cohorts = list(cohorts)
        self.slides: list[TissueRecord] = []
        self.cohort_of: list[int] = []
        self._choices: list[tuple[list[Choice], list[float]]] = []
        self._edges: list[list[float]] = []
        self._first: list[int] = []
        self.patience = Patience(tiles.patience, [record.path for records, _ in cohorts.values() for record in records])
        self._masks = MaskCache(patience=self.patience)
        self._blocks: OrderedDict[tuple[int, float], Blocks] = OrderedDict()
        self._barren: set[tuple[int, float]] = set()
        self._shares = _edges([share for _, share in cohorts.values()], "cohorts")
        for name, (records, share) in cohorts.items():
            self._add(name, records if share > 0 else [], share)

    def _add(self, name: str, records: Sequence[TissueRecord], share: float) -> None:
        found = [(record, windows) for record in records if record.ok and (windows := windows_of(record, self.tiles))]
        cohort = len(self._first)
        edges: dict[tuple[float, ...], list[float]] = {}
        self._first.append(len(self.slides))
        for number, (record, windows) in enumerate(found, len(self.slides)):
            choices = [Choice(number, cohort, window) for window, _ in windows]
            weights = tuple(weight for _, weight in windows)
            if weights not in edges:
                edges[weights] = _edges(weights, "tiles.mpp_weights")
            self._choices.append((choices, edges[weights]))
            self._masks.prepare(record.index)
        self.slides += [record for record, _ in found]
        self.cohort_of += [cohort] * len(found)
        if share > 0 and not found:
            raise MidnightError(
                f"cohort {name}: none of {len(records)} slides can give tiles of {self.tiles.size} px at "
                f"{', '.join(f'{mpp:g}' for mpp in self.tiles.mpps)} µm/px; change tiles.mpps or tiles.size"
            )
        by_area = choose(self.tiles.slide_weights, {"uniform": False, "area": True}, "tiles.slide_weights")
        areas = [record.tissue_mm2 if by_area else 1.0 for record, _ in found]
        self._edges.append(_edges(areas, f"cohort {name}") if found else [])

    def windows(self, slide: int) -> list[tuple[Window, float]]:
        """The windows of a slide, each with its share of the slide's tiles."""
        choices, edges = self._choices[slide]
        return [
            (choice.window, edge - before)
            for choice, edge, before in zip(choices, edges, [0.0, *edges[:-1]], strict=True)
        ]

    def draw_slide(self, rng: np.random.Generator) -> Choice:
        """A cohort, a slide and an mpp: three numbers of `rng`."""
        for_cohort, for_slide, for_mpp = rng.random(3).tolist()
        cohort = bisect_right(self._shares, for_cohort)
        return self.choice_of(self._first[cohort] + bisect_right(self._edges[cohort], for_slide), for_mpp)

    def choice_of(self, slide: int, number: float) -> Choice:
        """A slide at one of its mpps, by their weights; `number` is uniform in [0, 1)."""
        choices, edges = self._choices[slide]
        return choices[bisect_right(edges, number)]

    def draw_position(self, rng: np.random.Generator, choice: Choice) -> tuple[int, int] | None:
        """Column and row of the window's grid, uniform over positions with enough tissue; None if there is none."""
        view = self.view(choice)
        found = try_positions(rng, view, choice.window, self.tiles.foreground)
        if found is not None:
            return found
        key = (choice.slide, choice.window.mpp)
        if key in self._barren:
            return None
        if key not in self._blocks:
            while len(self._blocks) >= MAX_BLOCKS_KEPT:
                self._blocks.popitem(last=False)
            self._blocks[key] = find_blocks(view, choice.window, self.tiles.foreground)
        self._blocks.move_to_end(key)
        if not len(self._blocks[key].bounds):
            self._barren.add(key)
        return draw_from_blocks(rng, self._blocks[key], view, choice.window, self.tiles.foreground)

    def view(self, choice: Choice) -> MaskView:
        """The mask of a choice's slide."""
        return self._masks.get(self.slides[choice.slide])

    def share(self, choice: Choice, column: int, row: int) -> float:
        """Share of tissue in the tile at a position."""
        return position_share(self.view(choice), choice.window, column, row)


def _edges(weights: Sequence[float], where: str) -> list[float]:
    """Cumulative shares; the last is 1."""
    total = float(sum(weights))
    if total <= 0:
        raise MidnightError(f"{where}: all weights are 0; nothing can be drawn")
    edges = [float(edge / total) for edge in accumulate(weights)]
    edges[-1] = 1.0
    return edges
