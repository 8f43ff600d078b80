"""Trained models against their random initialisation, task by task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from midnight.report.comparison import Comparison
from midnight.report.figures import style

MARKERS = ("o", "s", "D", "^", "v", "P")


def draw_gains(comparisons: Sequence[Comparison], output: Path) -> None:
    """A row per task: the random initialisation (open grey circle) and each trained model, with ± 2 standard errors.

    Args:
        comparisons: from `midnight.report.comparison.compare_to_random`, of one pooling and kind of data.
        output: `gains-*.svg`.
    """
    title = "Trained against random initialisation"
    if not comparisons:
        style.missing(output, title, "There is no trained model with a random initialisation to compare with.")
        return
    tasks = list(dict.fromkeys(item.task for item in comparisons))
    models = list(dict.fromkeys(item.label for item in comparisons))
    with style.figure(0.9 + 0.42 * len(tasks) + 0.2 * len(models)) as drawn:
        axis = drawn.subplots()
        for item in comparisons:
            place = models.index(item.label)
            _draw_pair(axis, item, tasks.index(item.task) + 0.16 * (place - (len(models) - 1) / 2), place)
        axis.set_yticks(range(len(tasks)), tasks)
        axis.set_ylim(len(tasks) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("score (bars: ± 2 standard errors over runs)")
        drawn.legend(*_legend(axis, models), loc="outside upper left", ncols=1, handletextpad=0.4)
        style.save(drawn, output, title, _alt(comparisons), _caption(comparisons))


def _draw_pair(axis: Axes, item: Comparison, y: float, place: int) -> None:
    colour = style.PALETTE[place % len(style.PALETTE)]
    axis.plot([item.random, item.trained], [y, y], color=colour, alpha=0.35, linewidth=2, zorder=1)
    bars: dict[str, Any] = {"fmt": "none", "elinewidth": 1, "capsize": 2, "zorder": 2}
    axis.errorbar(item.random, y, xerr=2 * (item.random_error or 0), ecolor=style.GREY, **bars)
    axis.errorbar(item.trained, y, xerr=2 * (item.trained_error or 0), ecolor=colour, **bars)
    axis.plot(item.random, y, "o", color="white", markeredgecolor=style.GREY, markeredgewidth=1.5, zorder=3)
    axis.plot(item.trained, y, MARKERS[place % len(MARKERS)], color=colour, zorder=3)


def _legend(axis: Axes, models: Sequence[str]) -> tuple[list, list[str]]:
    marks = axis.plot([], [], "o", color="white", markeredgecolor=style.GREY, markeredgewidth=1.5)
    for place in range(len(models)):
        colour = style.PALETTE[place % len(style.PALETTE)]
        marks += axis.plot([], [], MARKERS[place % len(MARKERS)], color=colour)
    return marks, ["random initialisation", *models]


def _alt(comparisons: Sequence[Comparison]) -> str:
    parts = [f"{c.task}, {c.label}: {c.random:.3f} to {c.trained:.3f}" for c in comparisons]
    return f"Scores from random initialisation to trained. {'; '.join(parts)}."


def _caption(comparisons: Sequence[Comparison]) -> str:
    better = sum(1 for c in comparisons if c.in_errors is not None and c.in_errors > 2)
    return f"{better} of {len(comparisons)} comparisons favour training by more than two standard errors."
