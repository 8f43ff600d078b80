"""How far a training run is, read from its files while it goes on, possibly on another machine."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from midnight.clock import duration

TAIL = 65_536
"""Bytes read from the end of `metrics.jsonl`: some hundred lines."""
RECENT = 20
"""Lines over which the speed is measured."""


@dataclass(frozen=True)
class Progress:
    """Steps done and in all, images per second (of all processes), and seconds left; None where not yet known."""

    step: int
    steps: int
    images_per_s: float | None
    seconds_left: float | None

    def __str__(self) -> str:
        """`step 34 of 60, 21.4 images/s, 1 min 10 s left`."""
        speed = "" if self.images_per_s is None else f", {self.images_per_s:.1f} images/s"
        left = "" if self.seconds_left is None else f", {duration(self.seconds_left)} left"
        return f"step {self.step:,} of {self.steps:,}{speed}{left}"


class Watch:
    """A look at a run's folder now and then; what an earlier training left there is not taken for this one's."""

    def __init__(self, folder: Path) -> None:
        """Made before the training writes anything."""
        self.folder = folder
        self._before = _stamp(self._metrics)

    @property
    def _metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    def progress(self) -> Progress | None:
        """None before the first step is logged, or while the files can't be read."""
        stamp = _stamp(self._metrics)
        if stamp is None or stamp == self._before:
            return None
        self._before = None  # from now on it is this training's
        try:
            config = yaml.safe_load((self.folder / "config.yaml").read_text(encoding="utf-8"))
            steps = int(config["recipe"]["training"]["iterations"])
            return progress_of(_tail(self._metrics), steps)
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
            return None


def progress_of(lines: list[str], steps: int) -> Progress | None:
    """From the last lines of `metrics.jsonl`; None where none is a step of training.

    The speed is of the last lines that belong together: `seconds` counts only training, not probes or pauses.
    """
    records = [record for record in map(_record, lines) if record][-RECENT:]
    if not records:
        return None
    last, first = records[-1], records[0]
    done, took = last["step"] - first["step"], last["seconds"] - first["seconds"]
    if not (done > 0 and took > 0):  # of a single line, the mean over the whole run
        done, took = last["step"], last["seconds"]
    left = (steps - last["step"]) * took / done if done > 0 and took > 0 else None
    return Progress(last["step"], steps, last.get("images_per_s"), left)


def _record(line: str) -> dict[str, Any] | None:
    """A line of a step; None for one that is half written, or of a probe before the first step."""
    try:
        value = json.loads(line)
        return value if value["step"] > 0 and value["seconds"] >= 0 else None
    except (ValueError, KeyError, TypeError):
        return None


def _tail(path: Path) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        return file.read().decode(errors="replace").splitlines()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
