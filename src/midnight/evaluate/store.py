"""Embeddings on disk: one folder per (model, size, task), complete once its index.json is there."""

import contextlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from midnight import disk
from midnight.atomic import atomic_path, write_json
from midnight.config import choose
from midnight.errors import MidnightError
from midnight.locks import claim

FEATURES, SAMPLES, INDEX, DONE = "features.npy", "samples.parquet", "index.json", "embedded.json"
PARTIAL_FEATURES, PARTIAL_SAMPLES = "features.partial", "samples.partial"
COLUMNS = ("split", "name", "target", "group")
CHECKPOINT_SECONDS = 10.0
"""How much work a killed job may lose."""

Row = tuple[str, str, float, str]


@dataclass(frozen=True)
class Embeddings:
    """[CLS ‖ mean] [N, 2D], memory-mapped; samples: a row each with split, name, target, group; the index.

    Features are float32, or float16 where the model ran in bfloat16: convert what you take out.
    """

    features: np.ndarray
    samples: pd.DataFrame
    index: dict[str, Any]

    @property
    def dim(self) -> int:
        """D, the model's embedding dimension."""
        return self.features.shape[1] // 2

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of a split: int64 [n]."""
        return np.flatnonzero((self.samples["split"] == split).to_numpy())

    def pooled(self, pooling: str) -> np.ndarray:
        """A view of the features for "cls" [N, D] or "cls_mean" [N, 2D]."""
        return self.features[:, : choose(pooling, {"cls": self.dim, "cls_mean": 2 * self.dim}, "pooling")]


class EmbeddingWriter:
    """Streams embeddings to a folder; after a job was killed, the next writer with the same key goes on from there.

    `features.partial` grows into features.npy. `samples.partial` has a JSON line with the key, then one per checkpoint:
    its samples, added once their features are safe on disk. Both are appended to rather than mapped into memory, since
    a full disk kills a process that writes through a map without a word.

    done: rows up to the last checkpoint.
    """

    def __init__(self, folder: Path, key: str, shape: tuple[int, int], dtype: str) -> None:
        """Open the folder, alone.

        Args:
            folder: where to.
            key: of the embeddings; what is there with another key is thrown away.
            shape: (N, 2D) of the complete features.
            dtype: "float32" or "float16", as stored.

        Raises:
            MidnightError: another job writes there, or the folder can't be written.
        """
        self.folder, self.shape, self.dtype = folder, shape, np.dtype(dtype)
        self._rows: list[Row] = []
        self._saved = time.monotonic()
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._samples = (folder / PARTIAL_SAMPLES).open("a+b")
            busy = f"{folder}: another job is writing these embeddings; wait for it or end it"
            unlocked = f"{folder}: no locks on this file system; don't embed the same model twice at a time"
            claim(self._samples, busy, unlocked)
            self._features = (folder / PARTIAL_FEATURES).open("a+b")
            self._recover(json.dumps([key, *shape, dtype]).encode() + b"\n")

    def __enter__(self) -> "EmbeddingWriter":
        return self

    def __exit__(self, *_: object) -> None:
        with _writing(self.folder), self._samples, self._features:
            self._checkpoint()

    def append(self, features: np.ndarray, rows: list[Row]) -> None:
        """Add a batch.

        Args:
            features: [B, 2D] of the stored dtype.
            rows: B tuples of `COLUMNS`.

        Raises:
            MidnightError: NaN in the features, or the disk is full.
        """
        finite = np.isfinite(features).all(1)
        if not finite.all():
            name = rows[int(np.argmin(finite))][1]
            raise MidnightError(f"{self.folder}: the model gives NaN or infinite embeddings for {name}")
        with _writing(self.folder):
            self._features.write(np.ascontiguousarray(features, self.dtype).data)
            self._rows += rows
            if time.monotonic() - self._saved >= CHECKPOINT_SECONDS:
                self._checkpoint()

    def finish(self, index: dict[str, Any]) -> None:
        """Turn the complete rows into features.npy, samples.parquet and, last, the index.

        Args:
            index: the JSON-like index; "key" and "count" are needed.

        Raises:
            MidnightError: the disk is full.
        """
        with _writing(self.folder):
            self._checkpoint()
            self._samples.seek(0)
            self._samples.readline()
            rows = [row for lines, _ in _checkpoints(self._samples) for row in lines]
            table = pd.DataFrame(rows, columns=list(COLUMNS))
            _forget(self.folder, INDEX, DONE)
            with atomic_path(self.folder / SAMPLES) as temporary:
                table.to_parquet(temporary, index=False)
            (self.folder / PARTIAL_FEATURES).replace(self.folder / FEATURES)
            write_json(self.folder / DONE, index)
            restore_index(self.folder)
            _forget(self.folder, PARTIAL_SAMPLES)

    def _checkpoint(self) -> None:
        self._features.flush()
        os.fsync(self._features.fileno())
        if self._rows:
            self._samples.write(json.dumps(self._rows).encode() + b"\n")
            self._samples.flush()
            os.fsync(self._samples.fileno())
        self.done += len(self._rows)
        self._rows = []
        self._saved = time.monotonic()

    def _recover(self, first: bytes) -> None:
        """Keep the whole checkpoints of a killed job with the same key; cut off everything else."""
        header = _npy_header(self.shape, self.dtype)
        self._samples.seek(0)
        known = self._samples.readline() == first
        self.done, end = 0, len(first)
        for rows, length in _checkpoints(self._samples) if known else ():
            self.done, end = self.done + len(rows), end + length
        size = len(header) + self.done * self.shape[1] * self.dtype.itemsize
        if known and os.fstat(self._features.fileno()).st_size >= size:
            self._samples.truncate(end)
            self._features.truncate(size)
            return
        self.done = 0
        for file, start in ((self._features, header), (self._samples, first)):
            file.truncate(0)
            file.write(start)
            file.flush()


def _npy_header(shape: tuple[int, int], dtype: np.dtype[Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return file.getvalue()


def _checkpoints(file: BinaryIO) -> Iterator[tuple[list[Row], int]]:
    """Samples and length in bytes of each line, up to one that a killed job left unfinished."""
    for line in file:
        try:
            rows = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            rows = None
        if rows is None:
            return
        yield rows, len(line)


def _writing(folder: Path) -> contextlib.AbstractContextManager[None]:
    return disk.writing(folder, "make room, then run again: what has been embedded is kept")


def _forget(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def is_current(folder: Path, key: str) -> bool:
    """Whether the folder holds complete embeddings with this key.

    The workflow removes index.json (a declared output) before it runs the job again; `embedded.json` beside it tells
    that the files are whole and saves computing them again.
    """
    try:
        done = json.loads((folder / DONE).read_text(encoding="utf-8"))
        whole = len(np.load(folder / FEATURES, mmap_mode="r")) == done["count"] and (folder / SAMPLES).is_file()
        return bool(done["key"] == key and whole)
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return False


def restore_index(folder: Path) -> None:
    """Write index.json again from `embedded.json`."""
    write_json(folder / INDEX, json.loads((folder / DONE).read_text(encoding="utf-8")))


def link_embeddings(source: Path, folder: Path) -> None:
    """Give a folder the complete embeddings of another one.

    By hard links: they take no space, and either folder can be deleted or written again without the other noticing.

    Raises:
        MidnightError: the folder can't be written.
    """
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _forget(folder, INDEX, DONE, PARTIAL_FEATURES, PARTIAL_SAMPLES, FEATURES, SAMPLES)
        for name in (FEATURES, SAMPLES):
            try:
                os.link(source / name, folder / name)
            except OSError:  # a file system without hard links
                shutil.copyfile(source / name, folder / name)
        write_json(folder / DONE, json.loads((source / DONE).read_text(encoding="utf-8")))
        restore_index(folder)


def read_embeddings(folder: Path) -> Embeddings:
    """Embeddings of a folder; features stay on disk until they are read.

    Raises:
        MidnightError: incomplete or damaged.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        features = np.load(folder / FEATURES, mmap_mode="c", allow_pickle=False)
        samples = pd.read_parquet(folder / SAMPLES)
    except (OSError, EOFError, ValueError) as error:
        raise MidnightError(f"{folder}: no complete embeddings ({error}); run the embed rule again") from error
    if len(features) != len(samples) or len(features) != index.get("count"):
        raise MidnightError(f"{folder}: {len(features)} features for {len(samples)} samples; run the embed rule again")
    return Embeddings(features, samples, index)
