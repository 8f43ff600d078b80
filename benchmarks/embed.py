"""Tiles per second of `midnight embed` beside TRIDENT's way of extracting features: OpenSlide reads, one pass.

    python benchmarks/embed.py [--quick] [--json] [--out FILE.md] [--data FOLDER]

Interleaved repetitions on the same tiles of a generated slide; see benchmarks/README.md.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from embed_support.sides import Case, agreement, build, ours, peer, read
from tiles_support.page import add_out, check_out, deliver, hardware, table, versions
from tiles_support.slides import MPP, Plan, default_folder, make_slides


@dataclass(frozen=True)
class Effort:
    """The models, the side of the slide in px, and how often each side runs."""

    cases: tuple[Case, ...]
    side: int
    repetitions: int


# Nearly nothing to compute: what reading, preparing and storing tiles cost.
LIGHT = Case("reading", "vit_tiny_patch16_224", 64, {"patch_size": 56, "embed_dim": 48, "depth": 1, "num_heads": 2})
SMALL = Case("ViT-S/14", "vit_small_patch14_dinov2", 64)
LARGE = Case("ViT-L/14", "vit_large_patch14_dinov2", 256)
ON_CPU, ON_GPU = Effort((LIGHT, SMALL), 10_000, 2), Effort((LIGHT, LARGE), 60_000, 3)
QUICK = Effort((LIGHT,), 6_000, 2)
TILE_MPP = 0.5
GOAL = 2.0


def timed(action: Callable[[], Path]) -> tuple[float, float, Path]:
    """Seconds by the clock, CPU seconds of this process and of those it waited for, and what came out."""
    before, started = os.times(), time.perf_counter()
    path = action()
    wall, after = time.perf_counter() - started, os.times()
    return wall, sum(after[:4]) - sum(before[:4]), path


def examine(case: Case, effort: Effort, slide: Path, device: torch.device, workers: int) -> dict[str, Any]:
    """Everything about one model."""
    encoder = build(case, device)
    seconds: dict[str, list[tuple[float, float]]] = {"ours": [], "trident's way": []}
    with tempfile.TemporaryDirectory() as folder:
        first = ours(slide, encoder, case, TILE_MPP, workers, Path(folder, "first"))  # warms up, and says which tiles
        known, coords = read(first)
        for number in range(effort.repetitions):
            output = Path(folder, str(number))
            wall, cpu, _ = timed(lambda to=output: ours(slide, encoder, case, TILE_MPP, workers, to))
            seconds["ours"].append((wall, cpu))
            wall, cpu, made = timed(
                lambda to=output: peer(slide, coords, encoder, case, TILE_MPP / MPP, workers, to / "peer")
            )
            seconds["trident's way"].append((wall, cpu))
        same = agreement(known, read(made)[0])
    rows = {
        side: {
            "tiles_per_s": round(len(coords) / statistics.median(wall for wall, _ in found), 2),
            "cpu_ms_per_tile": round(1000 * statistics.median(cpu for _, cpu in found) / len(coords), 3),
        }
        for side, found in seconds.items()
    }
    mine, other = rows["ours"], rows["trident's way"]
    return {
        "tiles": len(coords),
        "sides": rows,
        "ratio": round(mine["tiles_per_s"] / other["tiles_per_s"], 3),
        "ratio_cpu": round(other["cpu_ms_per_tile"] / mine["cpu_ms_per_tile"], 3),
        "agreement": round(same, 4),
    }


def run(effort: Effort, folder: Path, device: torch.device, workers: int) -> dict[str, Any]:
    """Everything, as the object that --json prints; the headline is the first model's."""
    (slide,) = make_slides(folder, [Plan(effort.side, 256, 5)])
    models = {}
    for case in effort.cases:
        print(f"{case.name} …", file=sys.stderr, flush=True)
        models[case.name] = examine(case, effort, slide, device, workers)
    first = models[effort.cases[0].name]
    about = {"machine": hardware(), "versions": versions(), "effort": asdict(effort), "workers": workers}
    return {
        "name": "embed",
        "unit": f"tiles/s, {effort.cases[0].name}",
        "ours": first["sides"]["ours"]["tiles_per_s"],
        "peer": first["sides"]["trident's way"]["tiles_per_s"],
        "ratio": first["ratio"],
        "goal": GOAL,
        "details": {"models": models, "device": device.type, **about},
    }


def sections(details: dict[str, Any]) -> dict[str, str]:
    """The page, by heading."""
    found = {}
    for name, model in details["models"].items():
        rows = [{"side": side, **values} for side, values in model["sides"].items()]
        ratios = [{key: model[key] for key in ("tiles", "ratio", "ratio_cpu", "agreement")}]
        found[f"{name}, {details['device']}, {details['workers']} workers"] = f"{table(rows)}\n\n{table(ratios)}"
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print it; the exit status does not depend on whether the goal is reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small slide and no model to speak of, under 50 s")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, as the last line")
    parser.add_argument("--data", type=Path, default=default_folder(), help="where generated slides are kept")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="of both sides")
    parser.add_argument("--cpu", action="store_true", help="on the CPU although there is a GPU")
    add_out(parser)
    options = parser.parse_args(arguments)
    check_out(options)
    device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
    effort = QUICK if options.quick else ON_CPU if device.type == "cpu" else ON_GPU
    found = run(effort, options.data, device, options.workers)
    line = f"Features of a slide: {found['ours']:.3g} against {found['peer']:.3g} {found['unit']}"
    line += f", ratio {found['ratio']} (goal {found['goal']})."
    deliver("Features of whole slides", line, sections(found["details"]), found, options.out, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
