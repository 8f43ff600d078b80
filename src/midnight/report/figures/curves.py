"""Training curves of one run, from its metrics.jsonl."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from midnight.config import read_yaml
from midnight.report.figures import style
from midnight.report.scores import finite
from midnight.ssl.checkpoint.run_key import SEGMENTS
from midnight.ssl.checkpoint.segments import told

MAX_POINTS = 400
FEW = 20
"""Up to so many points each is marked."""


Series = dict[str, tuple[np.ndarray, np.ndarray]]
"""Steps int64 [N] and values float64 [N] by metric."""


@dataclass(frozen=True)
class Panel:
    """One panel: the metrics of metrics.jsonl that it shows as curves or as level lines, with their names."""

    title: str
    names: dict[str, str]
    levels: dict[str, str] = field(default_factory=dict)


PANELS = (
    Panel("Loss", {"loss": "total", "dino": "DINO", "ibot": "iBOT"}),
    Panel("kNN accuracy", {"knn": "teacher"}, {"knn_random_init": "random init"}),
    Panel("Separation", {"separation": "teacher"}, {"separation_random_init": "random init"}),
    Panel("Agreement", {"agreement": "teacher"}, {"agreement_random_init": "random init"}),
    Panel("Regularizer", {"regularizer": "regularizer"}),
    Panel("Mean cosine of embeddings (1: collapse)", {"mean_cosine": "mean cosine"}),
    Panel("Effective rank", {"rank": "batch", "probe_rank": "probe"}),
    Panel("Entropy, nats", {"entropy": "targets", "prototype_entropy": "use of prototypes"}),
    Panel("Gradient norm", {"grad_norm": "gradient norm"}),
    Panel("Learning rate", {"lr": "learning rate"}),
)


def read_metrics(path: Path) -> Series:
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


def read_facts(path: Path) -> dict[str, Any]:
    """What a JSON file beside the metrics says; empty where there is none, or none that can be read."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


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
    """Stacked panels (loss parts, kNN accuracy, regularizer, collapse, learning rate) over the run's steps.

    Panels of what was not measured are left out. A run on demo data says so.

    Args:
        metrics: the run's metrics.jsonl; model.json and probe.json beside it are read where they are there.
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
        segments = read_segments(metrics)
        for axis, panel in zip(axes, panels, strict=True):
            _draw_panel(axis, panel, series)
            for segment in segments:
                axis.axvline(segment["until"], color=style.GREY, linewidth=1.0, linestyle=":")
        axes[-1].set_xlabel("step")
        went_on = "".join(f" Dotted: it went on {line}." for line in told(segments))
        caption = f"{_caption(series)}{went_on}{_probe_caption(read_facts(metrics.with_name('probe.json')), series)}"
        demo = read_facts(metrics.with_name("model.json")).get("data") == "demo"
        mark = "Demo data. " if demo else ""
        if demo:
            drawn.suptitle("demo data", x=0.99, ha="right", color=style.ORANGE, fontsize=9)
        style.save(drawn, output, run, f"{mark}{_alt(run, series)}", f"{mark}{caption}")


def read_segments(metrics: Path) -> list[dict[str, Any]]:
    """Where the run went on with other values: the segments of the config.yaml beside its metrics."""
    path = metrics.with_name("config.yaml")
    return list(read_yaml(path).get(SEGMENTS, [])) if path.is_file() else []


def _draw_panel(axis: Axes, panel: Panel, series: Series) -> None:
    shown = [(name, label) for name, label in panel.names.items() if name in series]
    levels = [(name, label) for name, label in panel.levels.items() if name in series]
    for (name, label), colour in zip(shown, (style.BLUE, style.ORANGE, style.GREEN), strict=False):
        steps, values = series[name]
        window = max(1, len(values) // 50)
        marker = "." if len(values) <= FEW else ""
        axis.plot(*thin(steps, values), color=colour, alpha=0.25, linewidth=0.8)
        axis.plot(*thin(steps, smooth(values, window)), color=colour, linewidth=1.6, label=label, marker=marker)
    for name, label in levels:
        axis.axhline(series[name][1][0], color=style.GREY, linewidth=1.2, linestyle="--", label=label)
    axis.set_title(panel.title)
    axis.margins(x=0.01)
    if len(shown) + len(levels) > 1:
        axis.legend(
            ncols=len(shown) + len(levels),
            loc="lower right",
            bbox_to_anchor=(1, 0.98),
            borderaxespad=0,
            handlelength=1.2,
        )


def _ends(series: Series, name: str) -> str:
    values = series[name][1]
    few = max(1, math.ceil(len(values) / 20))
    return f"from {values[:few].mean():.3g} to {values[-few:].mean():.3g}"


def _alt(run: str, series: Series) -> str:
    names = {
        "loss": "total loss",
        "dino": "DINO loss",
        "ibot": "iBOT loss",
        "mean_cosine": "mean cosine",
        "knn": "kNN accuracy",
    }
    parts = [f"{label} {_ends(series, name)}" for name, label in names.items() if name in series]
    return f"Training curves of {run}: {'; '.join(parts) or 'see the panels'}."


def _probe_caption(facts: Mapping[str, Any], series: Series) -> str:
    """What the probe's curves are measured on."""
    return f"{_label_free_caption(facts, series)}{_knn_caption(facts, series)}"


def _label_free_caption(facts: Mapping[str, Any], series: Series) -> str:
    if "separation" not in series:
        return ""
    where = f" of {facts['slides']} of the run's slides" if "slides" in facts else ""
    return (
        f" Without labels, on tiles{where} in two stains: separation, how much nearer a tile's other stain is than "
        f"other tiles, in deviations of these ({_ends(series, 'separation')}); agreement, the share of its nearest "
        f"tiles on other slides that it keeps ({_ends(series, 'agreement')}). Within a run both rise with labelled "
        "tasks' scores."
    )


def _knn_caption(facts: Mapping[str, Any], series: Series) -> str:
    if "knn" not in series:
        return ""
    first = f", random init {series['knn_random_init'][1][0]:.3g}" if "knn_random_init" in series else ""
    accuracy = f" kNN accuracy {series['knn'][1][-1]:.3g}{first}"
    names = facts.get("names")
    if not isinstance(names, list) or not names:
        return f"{accuracy}."
    return (
        f"{accuracy}, chance {1 / len(names):.2g}: the teacher's CLS on {facts.get('train')} + {facts.get('test')} "
        f"tiles of the run's own slides, labelled by {len(names)} projects or cohorts; for this curve only, no score "
        "of a model."
    )


def _caption(series: Series) -> str:
    last = max(int(steps[-1]) for steps, _ in series.values())
    cosine = f" Mean cosine {_ends(series, 'mean_cosine')}." if "mean_cosine" in series else ""
    speed = f" Median {np.median(series['images_per_s'][1]):,.0f} images/s." if "images_per_s" in series else ""
    return f"{last:,} steps.{cosine}{speed} Pale: as logged; full: moving mean."
