"""Everything that runs on one core: both sides in all modes, the limits, and the memory that each takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midnight.config import Crops

from . import limit, ours, peer
from .memory import in_child, peak_rss, reset_peak
from .ours import CROPS, HED, MPPS, NONE, Setting
from .timing import Side, compare, drive, interleave, one_core, summarise

MODES = (NONE, HED, CROPS)
GOALS = {"exact c": 4.5, "native c": 7.0, "shared16 c": 10.0}
LIMIT_GOAL = 1.5


@dataclass(frozen=True)
class Run:
    """Repetitions of so many seconds, our batch size, and the tiles whose reads are written down for the limits."""

    repetitions: int
    seconds: float
    batch: int
    traced: int


def settings(levels: Mapping[float, float]) -> dict[str, Setting]:
    """Our configurations by name.

    exact: the four µm/px asked for. native: the µm/px that the peer really reads, as often as it does. shared8 and
    shared16: with so many tiles per read. photometric: with all of DINOv2's augmentations.
    """
    mpps, weights = peer.native(dict(levels))
    found = {f"exact {mode}": Setting(mode) for mode in MODES}
    found |= {f"native {mode}": Setting(mode, mpps, weights) for mode in MODES}
    for count in ours.SHARED_READS:
        found |= {f"shared{count} {mode}": Setting(mode, tiles_per_read=count) for mode in (NONE, CROPS)}
        found[f"shared{count} native c"] = Setting(CROPS, mpps, weights, count)
    found["photometric c"] = Setting(CROPS, crops=Crops())
    return found


def measure(index: Path, slides: list[Path], run: Run) -> dict[str, Any]:
    """All sides in turn on one core: medians of each, ratios to the peer and to the limits."""
    levels = peer.levels_read(slides[0])
    with one_core() as core:
        limits, facts = limit.sides(index, Setting(NONE), run.traced)
        pipelines = {mode: peer.pipeline(slides, mode) for mode in MODES}
        sides: dict[str, Side] = {f"peer {mode}": peer.side(running) for mode, running in pipelines.items()}
        sides |= {
            name: ours.side(index, setting, batch=run.batch) for name, setting in settings(levels).items()
        } | limits
        found = {
            name: summarise(readings) for name, readings in interleave(sides, run.repetitions, run.seconds).items()
        }
        for side in sides.values():
            side.close()
        facts["reads_per_tile_of_peer"] = peer.reads_per_tile(pipelines[NONE])
    return {
        "core": core,
        "sides": found,
        "to_peer": {name: to_peer(found, name) for name in found if name not in limits and not name.startswith("peer")},
        "to_openslide": compare(found["exact a"], found["openslide reads"]),
        "to_limit": to_limit(found),
        "traced": facts,
        "levels_read_by_peer": {f"{mpp:g}": level for mpp, level in levels.items()},
    }


def to_peer(found: Mapping[str, dict[str, float]], name: str) -> dict[str, Any]:
    """The ratio of one of our configurations to the peer in the same mode."""
    return compare(found[name], found[f"peer {name[-1]}"], GOALS.get(name))


def to_limit(found: Mapping[str, dict[str, float]]) -> dict[str, Any]:
    """How many times the bare decode ours takes without augmentation; 1 is the limit."""
    by_wall, by_cpu = (found["exact a"][clock] / found["bare decode"][clock] for clock in ("wall_ms", "cpu_ms"))
    return {
        "times": round(by_wall, 2),
        "times_cpu": round(by_cpu, 2),
        "goal_at_most": LIMIT_GOAL,
        "reached": by_wall <= LIMIT_GOAL,
    }


def memory(index: Path, slides: list[Path], seconds: float, batch: int) -> dict[str, dict[str, float]]:
    """Peak resident memory of a process that runs one side in mode c, and how much of it the side added, MB."""
    chosen = settings(peer.levels_read(slides[0]))
    found = {"peer c": in_child(_peak_of_peer, slides, seconds)}
    for name in ("exact c", *(f"shared{count} c" for count in ours.SHARED_READS)):
        found[name] = in_child(_peak_of_ours, index, chosen[name], seconds, batch)
    return found


def _peak_of_ours(index: Path, setting: Setting, seconds: float, batch: int) -> dict[str, float]:
    return _peak(ours.side(index, setting, batch=batch), seconds)


def _peak_of_peer(slides: list[Path], seconds: float) -> dict[str, float]:
    return _peak(peer.side(peer.pipeline(slides, CROPS)), seconds)


def _peak(side: Side, seconds: float) -> dict[str, float]:
    reset_peak()
    before = peak_rss()
    drive(side, seconds)
    return {"peak_mb": peak_rss(), "added_mb": round(peak_rss() - before, 1)}


def mpps_text(levels: Mapping[str, float]) -> str:
    """What the peer reads, in words."""
    return (
        ", ".join(f"{target} from {level:g}" for target, level in levels.items()) + f" µm/px (of {len(MPPS)} targets)"
    )
