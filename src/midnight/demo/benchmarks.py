"""The demo's benchmarks: small stand-ins, in the on-disk layouts that eva 0.4.5 and HEST-bench define."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from midnight.atomic import write_json
from midnight.demo.bach import write_bach
from midnight.demo.consep import write_consep
from midnight.demo.crc import write_crc
from midnight.demo.hest import TASKS, write_hest
from midnight.demo.parallel import run_all
from midnight.demo.patch_camelyon import write_patch_camelyon
from midnight.errors import MidnightError

MARK = "benchmarks.json"


def write_benchmarks(folder: Path, seed: int, scale: float) -> None:
    """Write `benchmarks.json`, `bach`, `crc`, `patch_camelyon`, `consep` and `hest/{DEMO_A,DEMO_B}` below `folder`.

    Data sets that are there and were not generated stay: `benchmarks.json` is the mark of a folder of the demo's. The
    same files, byte for byte, for the same arguments. Tissue comes from the slides' generator, but never from the
    slides: seeds differ.

    Args:
        folder: where to.
        seed: of everything.
        scale: size; 1 is the demo's, see each benchmark for what shrinks.

    Raises:
        MidnightError: the folder can't be written, or holds a data set that was not generated.
    """
    folder = Path(folder)
    sets: list[tuple[str, Callable[..., None], tuple[str, ...]]] = [
        ("bach", write_bach, ()),
        *((f"hest/{task}", write_hest, (task,)) for task in TASKS),
        ("patch_camelyon", write_patch_camelyon, ()),
        ("consep", write_consep, ()),
        ("crc", write_crc, ()),
    ]
    names = [name for name, _, _ in sets]
    _refuse_real_data(folder, names)
    write_json(folder / MARK, {"data": "demo", "seed": seed, "scale": scale, "sets": names})
    jobs = [(writer, folder / name, seed, scale, *rest) for name, writer, rest in sets]
    run_all(_write, jobs, "demo benchmarks", "set")


def _refuse_real_data(folder: Path, names: Sequence[str]) -> None:
    try:
        generated = json.loads((folder / MARK).read_text(encoding="utf-8"))["data"] == "demo"
    except (OSError, ValueError, KeyError, TypeError):
        generated = False
    there = [name for name in names if (folder / name).exists()]
    if there and not generated:
        raise MidnightError(
            f"{folder / there[0]}: is there, and the demo did not make it; set evaluation.data_root to another folder"
        )


def _write(writer: Callable[..., None], *rest: object) -> None:
    writer(*rest)
