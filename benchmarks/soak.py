"""A soak of the tile stream: two workers draw from slides that vanish, are cut short or overwritten midway.

    python benchmarks/soak.py [--minutes 20] [--quick] [--json] [--out FILE.md] [--data FOLDER]

Exit status 0: memory and file handles stay flat, batches keep coming, and every damaged slide is quarantined with a
reason. See benchmarks/README.md.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from tiles_support import ours
from tiles_support.damage import Damager
from tiles_support.page import add_out, check_out, hardware, table, versions, write_page
from tiles_support.slides import Plan, default_folder, make_slides
from tiles_support.watch import GROWTH_SHARE, Watch, handle_verdict, memory_verdict
from torch.utils.data import DataLoader
from tqdm import tqdm

from midnight.config import Crops, Tiles
from midnight.tiles.draw.lost_slides import FILE, read_quarantine
from midnight.tiles.stream import TileStream

PLANS = [Plan(10_000, tile, seed) for seed, tile in enumerate((256, 240, 256))]
COPIES = 24
DAMAGED = 12
OPEN = 6
WORKERS = 2
BATCH = 32
QUICK_SECONDS = 32.0
# In half a minute caches are still filling: only a gross leak shows.
QUICK_GROWTH = 0.5
LONGEST_GAP = 20.0


@dataclass
class Progress:
    """What came of the run: batches, tiles, the longest wait for a batch in s, an error that ended it."""

    batches: int = 0
    tiles: int = 0
    longest_gap: float = 0.0
    after_damage: int = 0
    error: str = ""


class Step:
    """A training step small enough for a CPU: one convolution that tells first from second global crops."""

    def __init__(self) -> None:
        self._net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 16, 16), torch.nn.Flatten(), torch.nn.LazyLinear(1))
        self._optimizer: torch.optim.Optimizer | None = None

    def __call__(self, batch: dict[str, Any]) -> float:
        """One step on a batch; its loss."""
        images = batch["global_crops"].flatten(0, 1).float() / 127.5 - 1
        target = torch.arange(len(images)) % 2
        loss = torch.nn.functional.binary_cross_entropy_with_logits(self._net(images)[:, 0], target.float())
        self._optimizer = self._optimizer or torch.optim.SGD(self._net.parameters(), 1e-3)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return float(loss)


def copies(slides: list[Path], folder: Path) -> list[Path]:
    """Copies of the slides, which may be damaged."""
    found = [folder / f"slide-{number:02d}.svs" for number in range(COPIES)]
    for number, path in enumerate(found):
        shutil.copyfile(slides[number % len(slides)], path)
    return found


def make_stream(index: Path, quarantine: Path) -> TileStream:
    """The stream of a soak: DINOv2's augmentations, few slides open."""
    tiles = Tiles(max_open_slides=OPEN)
    return TileStream({"soak": (index, 1.0)}, tiles, Crops(), 3, BATCH, quarantine=quarantine)


def run(stream: TileStream, seconds: float, damager: Damager, watch: Watch, every: float) -> Progress:
    """Batches and steps for `seconds`, with a sample `every` so many; an error ends it and is kept."""
    progress, step = Progress(), Step()
    start = last = time.monotonic()
    sampled = 0.0
    damager.start()
    try:
        for batch in _batches(stream):
            now = time.monotonic()
            progress.longest_gap = max(progress.longest_gap, now - last) if progress.batches else 0.0
            progress.batches += 1
            progress.tiles += len(batch["index"])
            progress.after_damage += not damager.is_alive()
            step(batch)
            if now - sampled >= every:
                watch.sample()
                sampled = now
            if now - start >= seconds:
                break
            last = now
    except (RuntimeError, psutil.Error) as error:
        progress.error = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return progress


def _batches(stream: TileStream) -> Iterator[dict[str, Any]]:
    """Batches of two workers; RuntimeError when a worker dies or none comes for long (a deadlock)."""
    loader = DataLoader(stream, batch_size=None, num_workers=WORKERS, timeout=3 * LONGEST_GAP)
    yield from tqdm(loader, desc="soak", unit="batch")


def verdicts(
    progress: Progress, watch: Watch, damaged: dict[str, str], quarantined: dict[str, str], growth: float
) -> dict[str, Any]:
    """All checks, each with an `ok`."""
    missing = sorted(f"{slide} ({kind})" for slide, kind in damaged.items() if not quarantined.get(slide))
    wrong = sorted(set(quarantined) - set(damaged))
    coming = not progress.error and progress.longest_gap <= LONGEST_GAP and progress.after_damage > 0
    return {
        "batches": {**vars(progress), "allowed_gap": LONGEST_GAP, "ok": coming},
        "memory": memory_verdict(watch.samples, growth),
        "handles": handle_verdict(watch.samples, 2 * OPEN + 2),
        "quarantine": {
            "damaged": damaged,
            "reasons": quarantined,
            "missing": missing,
            "unharmed_but_quarantined": wrong,
            "ok": not missing and not wrong and len(damaged) == DAMAGED,
        },
    }


def soak(data: Path, seconds: float) -> dict[str, Any]:
    """The whole run in a temporary folder; the checks and what they rest on."""
    slides = make_slides(data, PLANS)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="midnight-soak-") as name:
        folder = Path(name)
        (folder / "slides").mkdir()
        paths = copies(slides, folder / "slides")
        index = ours.build_index(paths, folder / "index.parquet")
        stream = make_stream(index, folder / FILE)
        damager = Damager(paths[:DAMAGED], seconds * 0.3, seconds * 0.25 / DAMAGED)
        watch = Watch(folder / "slides")
        progress = run(stream, seconds, damager, watch, max(0.5, min(5.0, seconds / 60)))
        growth = GROWTH_SHARE if seconds > QUICK_SECONDS else QUICK_GROWTH
        lost = {slide.slide_id: slide.reason for slide in read_quarantine(folder / FILE)}
        return verdicts(progress, watch, damager.done, lost, growth)


def sections(checks: dict[str, Any]) -> dict[str, str]:
    """The page, by heading."""
    found = {}
    for name, values in checks.items():
        plain = {what: value for what, value in values.items() if not isinstance(value, dict)}
        found[name] = table([{"what": what, "value": value} for what, value in plain.items()])
    damaged, reasons = checks["quarantine"]["damaged"], checks["quarantine"]["reasons"]
    rows = [{"slide": slide, "damage": kind, "reason": reasons.get(slide)} for slide, kind in damaged.items()]
    return found | ({"damaged slides": table(rows)} if rows else {})


def main(arguments: list[str] | None = None) -> int:
    """Run the soak; 1 when a check fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="length of the run")
    parser.add_argument("--quick", action="store_true", help="half a minute, about 40 s in all")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, as the last line")
    add_out(parser)
    parser.add_argument("--data", type=Path, default=default_folder(), help="where generated slides are kept")
    options = parser.parse_args(arguments)
    check_out(options)
    seconds = QUICK_SECONDS if options.quick else 60 * options.minutes
    checks = soak(options.data, seconds)
    failed = [name for name, values in checks.items() if not values["ok"]]
    summary = f"{seconds / 60:.1f} minutes, {checks['batches']['tiles']} tiles: " + (
        f"FAILED: {', '.join(failed)}" if failed else "memory and handles flat, no gap, all damaged slides quarantined"
    )
    parts = sections(checks)
    print(summary, *(f"\n{name}\n{text}" for name, text in parts.items()), sep="\n")
    if options.out:
        write_page(options.out, "Soak of the tile stream", summary, parts)
    if options.json:
        facts = {"machine": hardware(), "versions": versions(), "seconds": seconds}
        passed = len(checks) - len(failed)
        record = {"name": "soak", "unit": "checks passed", "ours": passed, "peer": None, "ratio": None}
        print(json.dumps(record | {"goal": len(checks), "details": checks | facts}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
