"""Which decoder reads windows of tiled slides fastest, and how far its pixels are from OpenSlide's.

    python benchmarks/decoders.py [--quick] [--json] [--out FILE.md] [--data FOLDER]

Windows of 256 px, and of 512 px averaged to 256, at random places in tissue of a generated JPEG and a generated
JPEG 2000 slide with tiles of 256 px. One core, no caches; all decoders read each window in turn. The headline is our
reader on 256 px windows of JPEG. Peers that are not installed are listed as missing.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from decoders_support.jpeg2000_slide import jpeg2000_slide
from decoders_support.readers import JPEG, JPEG2000, Reader
from tiles_support.page import add_out, check_out, hardware, table, versions, write_page
from tiles_support.slides import Plan, default_folder, make_slides
from tiles_support.timing import one_core
from tqdm import tqdm

REFERENCE = "OpenSlide"
OURS = "ours"
SIDES = (256, 512)
# The first prototype took 0.50 ms where OpenSlide took 1.73.
GOAL = 3.0
SEED = 17
# A window of glass alone is brighter in the mean.
GLASS = 222
# Windows at the start that don't count.
WARM_UP = 3
Opener = Callable[[Path], Reader]


def find_windows(path: Path, side: int, count: int) -> list[tuple[int, int]]:
    """x, y in level-0 px of windows with tissue; multiples of 4."""
    rng = np.random.Generator(np.random.Philox(key=[SEED, side]))
    found: list[tuple[int, int]] = []
    with openslide.OpenSlide(path) as slide:
        while len(found) < count:
            x, y = (4 * int(rng.integers(0, (length - side) // 4)) for length in slide.dimensions)
            pixels = np.asarray(slide.read_region((x, y), 0, (side, side)))[..., :3]
            if pixels.mean() < GLASS:
                found.append((x, y))
    return found


def open_readers(openers: dict[str, Opener], path: Path) -> tuple[dict[str, Reader], dict[str, str]]:
    """The readers, and why others are missing: not installed, or they can't open this slide."""
    readers, missing = {}, {}
    for name, opener in openers.items():
        try:
            readers[name] = opener(path)
            readers[name](0, 0, SIDES[0])
        except ImportError:
            missing[name] = "not installed"
        except Exception as error:
            if name in (REFERENCE, OURS):
                raise
            readers.pop(name, None)
            missing[name] = " ".join(str(error).split())[:120] or type(error).__name__
    return readers, missing


def measure(readers: dict[str, Reader], windows: list[tuple[int, int]], side: int, label: str) -> list[dict[str, Any]]:
    """One row per reader: median ms per window by the wall clock and of CPU, and the difference to OpenSlide."""
    names = list(readers)  # another one begins at each window: what other processes do then hits all alike
    wall: dict[str, list[float]] = {name: [] for name in readers}
    cpu: dict[str, list[float]] = {name: [] for name in readers}
    differences: dict[str, list[np.ndarray]] = {name: [] for name in readers}
    for number, (x, y) in enumerate(tqdm(windows, desc=label, unit="window")):
        tiles = {}
        for name in [*names[number % len(names) :], *names[: number % len(names)]]:
            start, cpu_start = time.perf_counter(), time.process_time()
            tiles[name] = readers[name](x, y, side)
            if number >= WARM_UP:
                wall[name].append(1000 * (time.perf_counter() - start))
                cpu[name].append(1000 * (time.process_time() - cpu_start))
        for name, tile in tiles.items():
            differences[name].append(np.abs(tile.astype(int) - tiles[REFERENCE]))
    ms, cpu_ms = ({name: statistics.median(times) for name, times in clock.items()} for clock in (wall, cpu))
    return [
        {
            "decoder": name,
            "ms": round(ms[name], 3),
            "cpu_ms": round(cpu_ms[name], 3),
            "ratio": round(ms[REFERENCE] / ms[name], 2),
            "ratio_cpu": round(cpu_ms[REFERENCE] / cpu_ms[name], 2),
            "max_difference": int(max(map(np.max, differences[name]))),
            "mean_difference": round(float(np.mean(differences[name])), 3),
        }
        for name in readers
    ]


def run(count: int, data: Path) -> dict[str, Any]:
    """Everything, as the object that --json prints."""
    jpeg = make_slides(data, [Plan(10_000, 256, 0)])[0]
    formats = {"JPEG": (jpeg, JPEG), "JPEG 2000": (jpeg2000_slide(data), JPEG2000)}
    rows: dict[str, list[dict[str, Any]]] = {}
    missing: dict[str, dict[str, str]] = {}
    with one_core():
        for name, (path, openers) in formats.items():
            readers, missing[name] = open_readers(openers, path)
            for side in SIDES:
                label = f"{name}, {side} px"
                # JPEG 2000 takes ten times as long.
                windows = find_windows(path, side, WARM_UP + (count if name == "JPEG" else count // 5))
                rows[label] = measure(readers, windows, side, label)
    return headline(rows) | {
        "details": {"rows": rows, "missing": missing, "machine": hardware(), "versions": versions()}
    }


def headline(rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The fields above the details."""
    first = {row["decoder"]: row for row in rows[f"JPEG, {SIDES[0]} px"]}
    return {
        "name": "decoders",
        "unit": "ms per 256 px window of a JPEG slide",
        "ours": first[OURS]["ms"],
        "peer": first[REFERENCE]["ms"],
        "ratio": first[OURS]["ratio"],
        "goal": GOAL,
    }


def sections(details: dict[str, Any]) -> dict[str, str]:
    """The page, by heading."""
    gone = [f"- {name} ({kind}): {why}" for kind, found in details["missing"].items() for name, why in found.items()]
    return {label: table(rows) for label, rows in details["rows"].items()} | {
        "Missing": "\n".join(gone) or "nothing",
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print it; the exit status does not depend on whether the goal is reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few windows, under 50 s")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, as the last line")
    add_out(parser)
    parser.add_argument("--data", type=Path, default=default_folder(), help="where generated slides are kept")
    options = parser.parse_args(arguments)
    check_out(options)
    found = run(40 if options.quick else 400, options.data)
    parts = sections(found["details"])
    summary = (
        f"256 px windows of a JPEG slide: {found['ours']:.2f} ms against OpenSlide's {found['peer']:.2f}, "
        f"ratio {found['ratio']} (goal {found['goal']:g})."
    )
    print(summary, *(f"\n{name}\n{text}" for name, text in parts.items()), sep="\n", file=sys.stderr)
    if options.out:
        write_page(options.out, "Decoders", summary, parts)
    if options.json:
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
