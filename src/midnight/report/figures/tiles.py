"""Tiles that were accepted and rejected, and why (the paper's Fig. A1, left)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes

from midnight.report.figures import style

COLUMNS = 4


class Example(Protocol):
    """What is drawn of a tile; `midnight.tiles.draw.examples.Example` is one."""

    @property
    def tile(self) -> np.ndarray:
        """RGB uint8 [H, W, 3]."""

    @property
    def reason(self) -> str:
        """`accepted`, `hsv` or `foreground`."""

    @property
    def fraction(self) -> float:
        """Share of pixels inside the HSV filter's ranges."""

    @property
    def foreground(self) -> float:
        """Share of tissue."""

    @property
    def mpp(self) -> float:
        """µm/px."""


@dataclass(frozen=True)
class Group:
    """Examples of one verdict, how they are called and drawn."""

    reason: str
    title: str
    colour: str
    rows: int


GROUPS = (
    Group("accepted", "Accepted", style.GREEN, 2),
    Group("hsv", "Rejected by the HSV filter", style.ORANGE, 1),
    Group("foreground", "Rejected: too little tissue", "#5a6475", 1),
)


def draw_tiles(examples: Sequence[Example], output: Path, cohort: str) -> None:
    """Two rows of accepted tiles, one row per reason of rejection, with µm/px and the share that decided.

    Args:
        examples: e.g. from `midnight.tiles.draw.examples.draw_examples`.
        output: `tiles-{cohort}.png`.
        cohort: name for the title.
    """
    kinds = [(group, [e for e in examples if e.reason == group.reason][: group.rows * COLUMNS]) for group in GROUPS]
    kinds = [(group, members) for group, members in kinds if members]
    title = f"Tiles of {cohort}"
    if not kinds:
        style.missing(output, title, "No tiles were drawn.")
        return
    rows = [-(-len(members) // COLUMNS) for _, members in kinds]
    with style.figure(1.16 * sum(rows) + 0.28 * len(rows)) as drawn:
        parts: Any = drawn.subfigures(len(kinds), 1, height_ratios=[n + 0.25 for n in rows], squeeze=False)[:, 0]
        for part, n, (group, members) in zip(parts, rows, kinds, strict=True):
            part.suptitle(group.title, fontsize=10, fontweight="bold", color=group.colour, x=0.01, ha="left")
            axes = part.subplots(n, COLUMNS, squeeze=False)
            for i, axis in enumerate(axes.flat):
                _draw(axis, members[i] if i < len(members) else None, group)
        counts = ", ".join(f"{len(members)} {group.title[0].lower()}{group.title[1:]}" for group, members in kinds)
        caption = "Chosen to show each kind; their numbers are no rates. Under each: µm/px and share of "
        caption += "pixels inside the HSV filter's ranges (of tissue, where that is too little)."
        style.save(drawn, output, title, f"Example tiles of {cohort}: {counts}.", caption)


def _draw(axis: Axes, example: Example | None, group: Group) -> None:
    if example is None:
        axis.axis("off")
        return
    axis.imshow(example.tile, interpolation="lanczos")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set(visible=True, color=group.colour, linewidth=1.6)
    share = example.foreground if group.reason == "foreground" else example.fraction
    axis.set_xlabel(f"{example.mpp:g} µm · {share:.0%}", fontsize=8, labelpad=2)
