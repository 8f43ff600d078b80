"""Tiles per second: our stream beside wsistream's Midnight recipe, OpenSlide reads and the bare JPEG decode.

    python benchmarks/tiles.py [--quick] [--json] [--out FILE.md] [--data FOLDER]

In one run on generated slides, in interleaved repetitions on one core; see benchmarks/README.md.
"""

import argparse
import logging
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tiles_support import core, flat, ours, peer, sharpness, workers
from tiles_support.page import add_out, check_out, deliver, hardware, table, versions
from tiles_support.slides import Plan, default_folder, make_slides


@dataclass(frozen=True)
class Effort:
    """How long the benchmark takes: slides and their side in px, repetitions, seconds each, and so on."""

    slides: int
    size: int
    repetitions: int
    seconds: float
    worker_repetitions: int
    worker_seconds: float
    index_counts: tuple[int, ...]
    index_seconds: float
    sharpness_tiles: int
    memory_seconds: float
    batch: int
    traced: int

    def plans(self) -> list[Plan]:
        """The slides; every fourth has JPEG tiles of 240 px, the others of 256."""
        return [Plan(self.size, 240 if number % 4 == 1 else 256, number) for number in range(self.slides)]


FULL = Effort(4, 30_000, 5, 1.5, 3, 3.0, flat.COUNTS, 6.0, 48, 6.0, 32, 512)
QUICK = Effort(2, 10_000, 3, 0.2, 1, 0.6, flat.COUNTS[:2], 0.4, 3, 0.3, 16, 128)


def run(effort: Effort, data: Path) -> dict[str, Any]:
    """Everything, as the object that --json prints."""
    slides = make_slides(data, effort.plans())
    with tempfile.TemporaryDirectory(prefix="midnight-bench-") as folder:
        index = ours.build_index(slides, Path(folder) / "index.parquet")
        # What is measured in forked processes comes first, while this one is still small.
        memory = core.memory(index, slides, effort.memory_seconds, effort.batch)
        flatness = flat.report(index, Path(folder) / "links", effort.index_counts, effort.index_seconds)
        measured = core.measure(
            index, slides, core.Run(effort.repetitions, effort.seconds, effort.batch, effort.traced)
        )
        two = workers.report(index, slides, paired(effort, slides), effort.worker_repetitions, effort.worker_seconds)
        sharp = sharpness.report(index, slides, effort.sharpness_tiles)
    found = {"memory": memory, "slides_in_index": flatness, "two_workers": two, "sharpness": sharp}
    about = {"machine": hardware(), "versions": versions(), "effort": asdict(effort)}
    return headline(measured) | {"details": measured | found | about}


def paired(effort: Effort, slides: list[Path]) -> dict[str, ours.Setting]:
    """Our configurations that are also measured with two workers."""
    chosen = core.settings(peer.levels_read(slides[0]))
    names = list(core.GOALS)
    return {name: chosen[name] for name in (names if effort is FULL else names[:1])}


def headline(measured: dict[str, Any]) -> dict[str, Any]:
    """The fields above the details: mode c, exact µm/px, independent draws."""
    sides, name = measured["sides"], "exact c"
    return {
        "name": "tiles",
        "unit": "tiles/s on one core",
        "ours": sides[name]["tiles_per_s"],
        "peer": sides["peer c"]["tiles_per_s"],
        "ratio": measured["to_peer"][name]["ratio"],
        "goal": core.GOALS[name],
    }


def sections(details: dict[str, Any]) -> dict[str, str]:
    """The page, by heading."""
    ratios = details["to_peer"]
    speed = [{"side": name, **values, **ratios.get(name, {})} for name, values in details["sides"].items()]
    columns = ("side", "tiles_per_s", "wall_ms", "cpu_ms", "spread", "ratio", "ratio_cpu", "goal", "reached")
    sharp = [
        {"target µm/px": target, "side": who, **values}
        for target, both in details["sharpness"].items()
        for who, values in both.items()
    ]
    two = details["two_workers"]
    pairs = [
        {"side": name, "tiles/s": speed, "ratio": two["ratio"].get(name)} for name, speed in two["tiles_per_s"].items()
    ]
    limits = {f"bare decode, {name}": value for name, value in details["to_limit"].items()}
    limits |= {f"OpenSlide reads, {name}": value for name, value in details["to_openslide"].items()} | details["traced"]
    return {
        "One core": table([{column: row.get(column) for column in columns} for row in speed]),
        "Against the limits, mode a": table([{"what": name, "value": value} for name, value in limits.items()]),
        "Two workers, mode c": table(pairs),
        "Memory of one process, mode c": table([{"side": name, **row} for name, row in details["memory"].items()]),
        "Slides in the index": table([{"slides": name, **row} for name, row in details["slides_in_index"].items()]),
        "Gradient variance, as a ratio to exact area averages": table(sharp),
        "What the peer reads": core.mpps_text(details["levels_read_by_peer"]),
    }


def summary(found: dict[str, Any]) -> str:
    """The headline in one line."""
    speeds = f"{found['ours']:.0f} tiles/s against {found['peer']:.0f} on one core"
    what = "2 × 224 + 8 × 98 crops with HED at exact µm/px, independent draws"
    return f"{what}: {speeds}, ratio {found['ratio']} (goal {found['goal']})."


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print it; the exit status does not depend on whether goals are reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two small slides, under 50 s")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, as the last line")
    add_out(parser)
    parser.add_argument("--data", type=Path, default=default_folder(), help="where generated slides are kept")
    options = parser.parse_args(arguments)
    check_out(options)
    if peer.missing:
        print("wsistream is not installed: run `make bench` once, or install the bench group", file=sys.stderr)
        return 2
    logging.getLogger("wsistream").setLevel(logging.ERROR)
    found = run(QUICK if options.quick else FULL, options.data)
    parts = sections(found["details"])
    deliver("Tiles per second", summary(found), parts, found, options.out, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
