"""Finished models, kept beside a run by the key of their configuration and put back when it is asked for again.

Snakemake removes a rule's outputs before it runs the rule. `finished.KEY/` has them by hard links, which cost no disk
until the run is trained otherwise, and the curves and the configuration. Nothing here is deleted.
"""

import contextlib
import json
import logging
import os
import shutil
from pathlib import Path

from midnight.ssl.checkpoint.aside import CHECKPOINTS, COMPANIONS, last_step, set_aside

log = logging.getLogger(__name__)
MODEL = ("teacher.safetensors", "model.json", "heads.safetensors")


def keep(output: Path, key: str) -> Path:
    """Keep a run's finished model; returns where."""
    target = output / f"finished.{key}"
    writing = target.with_name(f"{target.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir()
    _copy(output, writing)
    shutil.rmtree(target, ignore_errors=True)  # the same model, or a shorter training of it
    writing.replace(target)
    return target


def finished_step(output: Path, key: str) -> int:
    """Micro-steps of the finished model of a configuration; 0 if none is kept."""
    folder = output / f"finished.{key}"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if (folder / MODEL[0]).is_file():
            return int(json.loads((folder / MODEL[1]).read_text())["step"])
    return 0


def put_back(output: Path, key: str, iterations: int, present: str) -> bool:
    """Make the finished model of a configuration the run's; whether one of so many micro-steps is kept.

    Args:
        output: the run's folder.
        key: of the configuration that is asked for.
        iterations: micro-steps that are asked for.
        present: key of the configuration that is there; its checkpoints are set aside where it is another.
    """
    if finished_step(output, key) != iterations:
        return False
    if present != key and last_step(output / CHECKPOINTS):
        set_aside(output / CHECKPOINTS, present)
    kept = output / f"finished.{key}"
    _copy(kept, output)
    log.info("%s: trained already; the finished model is put back from %s", output, kept.name)
    return True


def _copy(source: Path, target: Path) -> None:
    for name in (*MODEL, *COMPANIONS):
        (target / name).unlink(missing_ok=True)
        if not (source / name).is_file():
            continue
        if name in COMPANIONS:  # the curves are written on
            shutil.copy2(source / name, target / name)
        else:
            link(source / name, target / name)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
