"""What a slide more in the index costs: start, tiles and memory with 10, 1,000 and 11,765 slides.

The rows of the index are copies of those of the few real slides; each has a path of its own, a link to one of them,
so that no cache is kept by file name. With more slides than `tiles.max_open_slides`, nearly every tile opens one.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from midnight.tissue.index import join_shards, read_index, write_records

from . import ours
from .memory import in_child, memory_of

COUNTS = (10, 1000, 11765)
WORKER_SETTING = ours.Setting(ours.CROPS)


def make_index(index: Path, count: int, folder: Path) -> Path:
    """An index of `count` slides in `folder`, links to the slides of `index`."""
    folder.mkdir(parents=True)
    templates = read_index(index)
    masks = [record.packed_mask() for record in templates]
    rows = []
    for number in range(count):
        template = templates[number % len(templates)]
        link = folder / f"slide-{number:05d}.svs"
        link.symlink_to(Path(template.path).resolve())
        kept: dict[str, Any] = {"packed": masks[number % len(templates)], "index": "", "row": -1}
        rows.append(dataclasses.replace(template, slide_id=link.stem, path=str(link), **kept))
    shard, joined = folder / "shard.parquet", folder / "index.parquet"
    write_records(rows, shard)
    join_shards([shard], joined)
    return joined


def measure(index: Path, seconds: float) -> dict[str, float]:
    """Start and speed of a stream in this process, and its memory after that."""
    before, start = memory_of(), time.perf_counter()
    batches = iter(ours.make_stream(index, WORKER_SETTING))
    stream_built = time.perf_counter()
    next(batches)
    first = time.perf_counter()
    tiles, cpu = 0, time.process_time()
    while time.perf_counter() - first < seconds or not tiles:
        tiles += len(next(batches)["index"])
    wall, cpu, after = time.perf_counter() - first, time.process_time() - cpu, memory_of()
    return {
        "start_s": round(stream_built - start, 4),
        "first_batch_s": round(first - stream_built, 4),
        "wall_ms": round(1000 * wall / tiles, 4),
        "cpu_ms": round(1000 * cpu / tiles, 4),
        "grown_rss_mb": round(after["rss"] - before["rss"], 1),
        "grown_uss_mb": round(after["uss"] - before["uss"], 1),
        **{f"{name}_mb": value for name, value in after.items()},
    }


def report(index: Path, folder: Path, counts: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """The measures for each number of slides, each in a process of its own."""
    found = {}
    for count in tqdm(counts, desc="slides in the index", unit="index"):
        many = make_index(index, count, folder / str(count))
        found[str(count)] = in_child(measure, many, seconds)
    return found
