"""How figures look and how they describe themselves.

All are drawn 4 inches wide, so that their text stays readable when the page is 390 px wide;
colours are Okabe and Ito's, distinguishable with any colour vision.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from midnight.atomic import atomic_path

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, GREY, BLACK = "#56B4E9", "#E69F00", "#8A8F98", "#222222"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, BLACK, GREY, "#7F3C8D", "#A5AA99")
WIDTH = 4.0
RC: Any = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa0aa",
    "axes.labelcolor": "#333333",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": "#e6e8ec",
    "grid.linewidth": 0.7,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "midnight",
    "svg.fonttype": "path",
}


@contextmanager
def figure(height: float, width: float = WIDTH) -> Iterator[Figure]:
    """A figure of `width` × `height` inches in the house style, without a global state to close."""
    with matplotlib.rc_context(RC):
        yield Figure(figsize=(width, height), layout="constrained", facecolor="white")


def save(drawn: Figure, output: Path, title: str, alt: str, caption: str, dpi: int = 160) -> None:
    """Write an SVG or PNG (by suffix) atomically, with its title, alternative text and caption inside.

    The description is `alt`, a blank line, `caption`; `midnight.report.inline` reads it back. Nothing in the file
    depends on the time.
    """
    metadata: dict[str, str | None] = {"Title": title, "Description": f"{alt}\n\n{caption}"}
    metadata |= {"Date": None} if output.suffix == ".svg" else {"Software": None}
    with atomic_path(output) as temporary, matplotlib.rc_context(RC):
        drawn.savefig(temporary, dpi=dpi, metadata=metadata)


def missing(output: Path, title: str, reason: str) -> None:
    """Write a figure that says in one sentence why there is nothing to draw."""
    with figure(1.0) as drawn:
        drawn.text(0.5, 0.5, reason, ha="center", va="center", color="#555555", wrap=True)
        save(drawn, output, title, reason, reason)
