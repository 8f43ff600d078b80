"""Checkpoints: written while training goes on, there whole or not at all, read only when every byte is right.

Each process copies its part of the state (`pieces`) and a thread writes it, while the next steps run. When all have
written, the first process writes the card with every file's SHA-256 and renames the folder. Processes meet only when a
save starts and when it ends, both in the training loop: no thread ever talks to other processes.
"""

import contextlib
import json
import logging
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from midnight.atomic import write_json
from midnight.errors import MidnightError
from midnight.hashing import hash_file, hash_value
from midnight.ssl import distributed
from midnight.ssl.checkpoint.aside import CHECKPOINT, bring_back, kept_step, last_step, set_aside
from midnight.ssl.checkpoint.finished import link
from midnight.ssl.checkpoint.pieces import Piece, PieceFiles, own_pieces, write_pieces

log = logging.getLogger(__name__)
READ_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError)
WRITE_ERRORS = (OSError, RuntimeError, MemoryError, SafetensorError, MidnightError)
CARD, WRITING = "checkpoint.json", ".writing-"


def piece_file(rank: int) -> str:
    """File of a process's part."""
    return f"shard-{rank:05d}.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint: tensors by name, read when asked for, and the rest (counters) as JSON has it."""

    step: int
    tensors: Mapping[str, Tensor]
    state: dict[str, Any]


class Save:
    """A checkpoint on its way to the disk: this process's part, written by a thread."""

    def __init__(self, step: int, state: Mapping[str, Any], file: Path, pieces: Mapping[str, Piece]) -> None:
        self.step, self.state, self.folder = step, dict(state), file.parent
        self.digest = ""
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._write, args=(file, pieces), name="checkpoint")
        self.thread.start()

    def _write(self, file: Path, pieces: Mapping[str, Piece]) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_pieces(file, pieces)
            self.digest = hash_file(file)
        except WRITE_ERRORS as error:
            self.error = error


class Checkpoints:
    """The folder `checkpoints/` of a run: `step_{n:08d}/`, n micro-steps done.

    Every checkpoint carries the key of the run's configuration; those of another one are never resumed from.
    `start`, `finish`, `save` and `newest` are called by all processes together.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        keep: int,
        keep_every: int | None = None,
        device: torch.device = torch.device("cpu"),  # noqa: B008 (a constant)
    ) -> None:
        """Look at nothing yet.

        Args:
            folder: where; on a disk that all processes see.
            key: of the run's configuration.
            keep: newest checkpoints kept.
            keep_every: micro-steps; the first checkpoint from each multiple on is kept for good.
            device: on which the processes' backend exchanges tensors.
        """
        self.folder, self.key, self.device = folder, key, device
        self.keep, self.keep_every = keep, keep_every
        self._saving: Save | None = None

    def paths(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(self.folder.glob(CHECKPOINT))

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write a checkpoint and wait for it; see `start` and `finish`."""
        self.start(step, tensors, state)
        self.finish()
        return self.folder / _name(step)

    def start(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Copy the state and begin to write it, once the checkpoint before is complete.

        Args:
            step: micro-steps done.
            tensors: by name, the same names in the same order on all processes; some may be sharded (DTensor).
            state: further values that JSON keeps exactly: numbers, text, lists.

        Raises:
            MidnightError: see `finish`.
        """
        self.finish()
        pieces = own_pieces(tensors, distributed.rank(), distributed.world())
        folder = self.folder / f"{WRITING}{step:08d}"
        self._saving = Save(step, state, folder / piece_file(distributed.rank()), pieces)

    def writing(self) -> bool:
        """Whether this process's part is still being written: `finish` would wait."""
        return self._saving is not None and self._saving.thread.is_alive()

    def finish(self) -> None:
        """Complete the save that was started, if any: wait, write the card, rename; then drop what need not be kept.

        Raises:
            MidnightError: the disk is full or the folder can't be written; the other checkpoints are as they were.
        """
        saving, self._saving = self._saving, None
        if saving is None:
            return
        saving.thread.join()
        digests = self._digests(saving)
        if distributed.rank() == 0 and all(digests):
            try:
                self._publish(saving, digests)
            except WRITE_ERRORS as error:
                saving.error = error
        if self._any(saving.error is not None):
            self._give_up(saving)

    def close(self) -> None:
        """After an error: let the thread end; alone, also complete the checkpoint, which is as good as any."""
        if distributed.active() and self._saving is not None:
            self._saving.thread.join()
        elif self._saving is not None:
            self.finish()

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint of this configuration whose bytes are all right; None to start from the beginning.

        A damaged one is logged, renamed to `….damaged` and the one before is tried. When the newest readable one is
        of another configuration, the whole folder is moved aside, and what was set aside of this one is brought back.
        """
        first = distributed.rank() == 0
        for writing in self.folder.glob(f"{WRITING}*") if first else ():
            shutil.rmtree(writing, ignore_errors=True)
        while True:
            step = self._agreed_step(self._found_step() if first else -1)
            if step < 0:
                return None
            path = self.folder / _name(step)
            problem = self._problem(path)
            if not self._any(problem is not None):
                return self._read(path)
            if first:
                log.warning("%s is damaged (%s); the one before is tried", path, problem or "another file of it")
                _retire(path, path.with_name(f"{path.name}.damaged"))

    def newest_whole(self) -> Path | None:
        """The newest checkpoint of this configuration whose bytes are all right; changes nothing, unlike `newest`."""
        for path in reversed(self.paths()):
            with contextlib.suppress(*READ_ERRORS):
                if _card(path)["config"] == self.key and self._problem(path) is None:
                    return path
        return None

    def _found_step(self) -> int:
        """As `_newest_step`, also among what was set aside."""
        step = self._newest_step()
        if step < 0 and not self.paths() and kept_step(self.folder, self.key):
            if self.folder.exists():  # with what was damaged
                set_aside(self.folder, "damaged")
            bring_back(self.folder, self.key)
            step = self._newest_step()
        return step

    def _newest_step(self) -> int:
        """Of this configuration and with a readable card; -1 if there is none."""
        for path in reversed(self.paths()):
            try:
                card = _card(path)
            except READ_ERRORS as error:
                log.warning("%s is damaged (%s); the one before is tried", path, " ".join(str(error).split())[:200])
                _retire(path, path.with_name(f"{path.name}.damaged"))
                continue
            if card["config"] != self.key:
                self._set_aside(str(card["config"]))
                return -1
            return int(card["step"])
        return -1

    def _problem(self, path: Path) -> str | None:
        """What is wrong with the files that this process checks: its share, for reading takes long."""
        try:
            files = sorted(_card(path)["files"].items())
            for name, expected in files[distributed.rank() :: distributed.world()]:
                if Path(name).name != name or hash_file(path / name) != expected:
                    return f"{name}: checksum differs"
                PieceFiles([path / name])
        except READ_ERRORS as error:
            return " ".join(str(error).split())[:200]
        return None

    def _read(self, path: Path) -> Checkpoint:
        card = _card(path)
        return Checkpoint(int(card["step"]), PieceFiles([path / name for name in sorted(card["files"])]), card["state"])

    def _publish(self, saving: Save, digests: list[str]) -> None:
        files = {piece_file(rank): digest for rank, digest in enumerate(digests)}
        card = {"step": saving.step, "config": self.key, "state": saving.state, "files": files}
        write_json(saving.folder / CARD, card | {"sha256": hash_value(card)})
        target = self.folder / _name(saving.step)
        shutil.rmtree(target, ignore_errors=True)
        saving.folder.replace(target)
        for old in self._superseded():
            shutil.rmtree(old, ignore_errors=True)

    def _superseded(self) -> list[Path]:
        """Checkpoints that are neither among the newest nor the first from a multiple of `keep_every` on."""
        paths, before, out = self.paths(), 0, []
        for path in paths[: -self.keep]:
            step = int(path.name.removeprefix("step_"))
            if self.keep_every is None or step // self.keep_every == before // self.keep_every:
                out.append(path)
            before = step
        return out

    def _give_up(self, saving: Save) -> None:
        """Raise this process's error, or say that another process has one."""
        if distributed.rank() == 0 or saving.error is not None:
            shutil.rmtree(saving.folder, ignore_errors=True)
        error = saving.error
        reason = getattr(error, "strerror", None) or " ".join(str(error or "another process failed to write").split())
        last = self.paths()[-1] if self.paths() else "none"
        raise MidnightError(
            f"{self.folder / _name(saving.step)}: checkpoint can't be written: {reason}; "
            f"free space and run again (last good one: {last})"
        ) from error

    def _digests(self, saving: Save) -> list[str]:
        """SHA-256 of all processes' files in order of rank, empty for one that could not be written."""
        own = bytes.fromhex(saving.digest) if saving.error is None else bytes(32)
        digests = distributed.gather_plain(torch.tensor(list(own), dtype=torch.uint8, device=self.device))
        return [bytes(digest.tolist()).hex() if digest.any() else "" for digest in digests]

    def _any(self, value: bool) -> bool:
        """Whether it is so on any process."""
        return bool(distributed.all_sum(torch.tensor(float(value), device=self.device)))

    def _agreed_step(self, step: int) -> int:
        """The first process's answer, since a shared disk may show others an older state."""
        return int(distributed.all_max(torch.tensor(step, device=self.device)))

    def _set_aside(self, other: str) -> None:
        step = last_step(self.folder)
        kept = set_aside(self.folder, other)
        log.warning(
            "%s: made by another configuration (%s, now %s); its progress (step %d) is kept in %s",
            self.folder,
            other,
            self.key,
            step,
            kept.name,
        )


def adopt(checkpoint: Path, target: Path, key: str) -> None:
    """Make a checkpoint that of another configuration too: its files by hard links where the disk has them.

    Args:
        checkpoint: `step_{n:08d}/`, whole.
        target: a folder of the same name elsewhere, made here.
        key: of the other configuration.

    Raises:
        OSError: it can't be written.
    """
    card = _card(checkpoint)
    target.mkdir(parents=True)
    for name in card["files"]:
        link(checkpoint / name, target / name)
    card["config"] = key
    write_json(target / CARD, card | {"sha256": hash_value(card)})


def _name(step: int) -> str:
    return f"step_{step:08d}"


def _card(path: Path) -> dict[str, Any]:
    """The card of a checkpoint.

    Raises:
        OSError, ValueError, KeyError: it can't be read or was changed.
    """
    card = json.loads((path / CARD).read_text(encoding="utf-8"))
    if card.pop("sha256") != hash_value(card) or path.name != _name(card["step"]):
        raise ValueError(f"{CARD}: its content was changed")
    return dict(card)


def _retire(path: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    path.replace(target)
