"""Training curves of one run, from its metrics.jsonl."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from midnight.report.figures import style
from midnight.report.scores import finite

MAX_POINTS = 400


@dataclass(frozen=True)
class Panel:
    """One panel: the metrics of metrics.jsonl that it shows, with their names in the legend."""

    title: str
    names: dict[str, str]


PANELS = (
    Panel("Loss", {"loss": "total", "dino": "DINO", "ibot": "iBOT"}),
    Panel("Regularizer", {"regularizer": "regularizer"}),
    Panel("Mean cosine of embeddings (1: collapse)", {"mean_cosine": "mean cosine"}),
    Panel("Entropy, nats", {"entropy": "targets", "prototype_entropy": "use of prototypes"}),
    Panel("Gradient norm", {"grad_norm": "gradient norm"}),
    Panel("Learning rate", {"lr": "learning rate"}),
)


def read_metrics(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Steps int64 [N] and values float64 [N] of each metric of a metrics.jsonl, finite ones only.

    A step that was logged twice (a resumed run) keeps its last value; lines cut off by a crash are passed over.
    """
    series: dict[str, dict[int, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        for name, step, value in _entries(line):
            series.setdefault(name, {})[step] = value
    ordered = {name: sorted(points.items()) for name, points in series.items()}
    return {
        name: (np.array([step for step, _ in points]), np.array([value for _, value in points]))
        for name, points in ordered.items()
    }


def _entries(line: str) -> Iterable[tuple[str, int, float]]:
    try:
        record = json.loads(line)
    except ValueError:
        return
    step = finite(record.get("step")) if isinstance(record, dict) else None
    if step is None:
        return
    for name, raw in record.items():
        value = finite(raw)
        if value is not None and name != "step":
            yield name, int(step), value


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving mean of float [N], shorter windows at the ends."""
    if window < 2:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - window // 2, 0), np.minimum(index + window // 2 + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def thin(steps: np.ndarray, values: np.ndarray, points: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `points` of the points, evenly spaced, first and last kept."""
    if len(steps) <= points:
        return steps, values
    keep = np.unique(np.linspace(0, len(steps) - 1, points).round().astype(int))
    return steps[keep], values[keep]


def draw_curves(metrics: Path, output: Path, run: str) -> None:
    """Stacked panels (loss parts, regularizer, mean cosine, entropy, learning rate) over the run's steps.

    Args:
        metrics: the run's metrics.jsonl.
        output: `curves-{run}.svg`.
        run: name for the title.
    """
    series = read_metrics(metrics) if metrics.exists() else {}
    panels = [panel for panel in PANELS if any(name in series for name in panel.names)]
    if not panels:
        style.missing(output, run, f"{run} has no training metrics.")
        return
    with style.figure(0.45 + 1.15 * len(panels)) as drawn:
        axes: Sequence[Axes] = drawn.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0].tolist()
        for axis, panel in zip(axes, panels, strict=True):
            _draw_panel(axis, panel, series)
        axes[-1].set_xlabel("step")
        style.save(drawn, output, run, _alt(run, series), _caption(series))


def _draw_panel(axis: Axes, panel: Panel, series: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    shown = [(name, label) for name, label in panel.names.items() if name in series]
    for (name, label), colour in zip(shown, (style.BLUE, style.ORANGE, style.GREEN), strict=False):
        steps, values = series[name]
        window = max(1, len(values) // 50)
        axis.plot(*thin(steps, values), color=colour, alpha=0.25, linewidth=0.8)
        axis.plot(*thin(steps, smooth(values, window)), color=colour, linewidth=1.6, label=label)
    axis.set_title(panel.title)
    axis.margins(x=0.01)
    if len(shown) > 1:
        axis.legend(ncols=len(shown), loc="lower right", bbox_to_anchor=(1, 0.98), borderaxespad=0, handlelength=1.2)


def _ends(series: dict[str, tuple[np.ndarray, np.ndarray]], name: str) -> str:
    values = series[name][1]
    few = max(1, math.ceil(len(values) / 20))
    return f"from {values[:few].mean():.3g} to {values[-few:].mean():.3g}"


def _alt(run: str, series: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    names = {"loss": "total loss", "dino": "DINO loss", "ibot": "iBOT loss", "mean_cosine": "mean cosine"}
    parts = [f"{label} {_ends(series, name)}" for name, label in names.items() if name in series]
    return f"Training curves of {run}: {'; '.join(parts) or 'see the panels'}."


def _caption(series: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    last = max(int(steps[-1]) for steps, _ in series.values())
    cosine = f" Mean cosine {_ends(series, 'mean_cosine')}." if "mean_cosine" in series else ""
    speed = f" Median {np.median(series['images_per_s'][1]):,.0f} images/s." if "images_per_s" in series else ""
    return f"{last:,} steps.{cosine}{speed} Pale: as logged; full: moving mean."
