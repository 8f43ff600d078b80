"""Checkpoints that appear whole or not at all, and are read only when every byte is right."""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from midnight.atomic import write_json
from midnight.errors import MidnightError
from midnight.hashing import hash_file

log = logging.getLogger(__name__)
READ_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, UnpicklingError, SafetensorError)
CARD, MODEL, STATE = "checkpoint.json", "model.safetensors", "state.pt"


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint: tensors by name, and the rest (optimizer, counters) as tensors and plain values."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


class Checkpoints:
    """The folder `checkpoints/` of a run: `step_{n:08d}/`, n micro-steps done.

    Every checkpoint carries the key of the run's configuration; those of another one are never resumed from.
    """

    def __init__(self, folder: Path, key: str, keep: int) -> None:
        self.folder = folder
        self.key = key
        self.keep = keep

    def paths(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(self.folder.glob("step_" + "[0-9]" * 8))

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write a checkpoint beside the others and rename it; then drop all but the newest `keep`.

        Raises:
            MidnightError: the disk is full or the folder can't be written; the other checkpoints are as they were.
        """
        target = self.folder / f"step_{step:08d}"
        temporary: Path | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.folder))
            self._write(temporary, step, tensors, state)
            shutil.rmtree(target, ignore_errors=True)
            temporary.replace(target)
        except (OSError, RuntimeError, SafetensorError, MidnightError) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            last = self.paths()[-1] if self.paths() else "none"
            raise MidnightError(
                f"{target}: checkpoint can't be written: {reason}; free space and run again (last good one: {last})"
            ) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)
        for old in self.paths()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def _write(self, folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        save_file({name: value.detach().contiguous() for name, value in tensors.items()}, folder / MODEL)
        with (folder / STATE).open("wb") as file:
            torch.save(dict(state), file)
        for name in (MODEL, STATE):
            with (folder / name).open("rb+") as file:
                os.fsync(file.fileno())
        hashes = {name: hash_file(folder / name) for name in (MODEL, STATE)}
        write_json(folder / CARD, {"step": step, "config": self.key, "files": hashes})

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint of this configuration whose bytes are all right; None to start from the beginning.

        A damaged one is logged, renamed to `….damaged` and the one before is tried. When the newest readable one is
        of another configuration, the whole folder is moved aside.
        """
        for writing in self.folder.glob(".writing-*"):
            shutil.rmtree(writing, ignore_errors=True)
        for path in reversed(self.paths()):
            try:
                card = json.loads((path / CARD).read_text(encoding="utf-8"))
                if card["config"] != self.key:
                    self._set_aside(str(card["config"]))
                    return None
                return self._read(path, card)
            except READ_ERRORS as error:
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                log.warning("%s is damaged (%s); falling back to the checkpoint before it", path, reason)
                _retire(path, path.with_name(f"{path.name}.damaged"))
        return None

    def _read(self, path: Path, card: Mapping[str, Any]) -> Checkpoint:
        for name, expected in card["files"].items():
            if name not in (MODEL, STATE) or hash_file(path / name) != expected:
                raise ValueError(f"{name}: checksum differs")
        state = torch.load(path / STATE, map_location="cpu", weights_only=True)
        return Checkpoint(int(card["step"]), load_file(path / MODEL), state)

    def _set_aside(self, other: str) -> None:
        label = other if other.isalnum() else "unknown"
        stale = self.folder.with_name(f"{self.folder.name}.stale-{label}")
        log.warning(
            "%s: made by another configuration (%s, now %s); moved to %s, training starts from step 0",
            self.folder,
            other,
            self.key,
            stale.name,
        )
        _retire(self.folder, stale)


def _retire(path: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    path.replace(target)
