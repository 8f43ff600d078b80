"""The demo's benchmarks: small stand-ins, in the on-disk layouts that eva 0.4.5 and HEST-bench define."""

from collections.abc import Callable
from pathlib import Path

from midnight.atomic import write_json
from midnight.demo.bach import write_bach
from midnight.demo.consep import write_consep
from midnight.demo.crc import write_crc
from midnight.demo.hest import TASKS, write_hest
from midnight.demo.parallel import run_all
from midnight.demo.patch_camelyon import write_patch_camelyon


def write_benchmarks(folder: Path, seed: int, scale: float) -> None:
    """Write `bach`, `crc`, `patch_camelyon`, `consep`, `hest/{DEMO_A,DEMO_B}`, then `benchmarks.json`, below `folder`.

    The same files, byte for byte, for the same arguments. Tissue comes from the slides' generator, but never from the
    slides: seeds differ.

    Args:
        folder: where to.
        seed: of everything.
        scale: size; 1 is the demo's, see each benchmark for what shrinks.

    Raises:
        MidnightError: the folder can't be written.
    """
    folder = Path(folder)
    sets: list[tuple[str, Callable[..., None], tuple[str, ...]]] = [
        ("bach", write_bach, ()),
        *((f"hest/{task}", write_hest, (task,)) for task in TASKS),
        ("patch_camelyon", write_patch_camelyon, ()),
        ("consep", write_consep, ()),
        ("crc", write_crc, ()),
    ]
    jobs = [(writer, folder / name, seed, scale, *rest) for name, writer, rest in sets]
    run_all(_write, jobs, "demo benchmarks", "set")
    names = [name for name, _, _ in sets]
    write_json(folder / "benchmarks.json", {"data": "demo", "seed": seed, "scale": scale, "sets": names})


def _write(writer: Callable[..., None], *rest: object) -> None:
    writer(*rest)
