"""Embeddings on disk: one folder per (model, size, task), complete once its index.json is there."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from midnight.atomic import atomic_path, write_json
from midnight.errors import MidnightError

FEATURES, SAMPLES, INDEX, DONE = "features.npy", "samples.parquet", "index.json", "embedded.json"
COLUMNS = ("split", "name", "target", "group")


@dataclass(frozen=True)
class Embeddings:
    """[CLS ‖ mean] float32 [N, 2D], memory-mapped; samples: a row each with split, name, target, group; the index."""

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
        return self.features[:, : self.dim] if pooling == "cls" else self.features


def is_current(folder: Path, key: str) -> bool:
    """Whether the folder holds complete embeddings with this key.

    The workflow removes index.json (a declared output) before it runs the job again; `embedded.json` beside it tells
    that the files are whole and saves computing them again.
    """
    try:
        done = json.loads((folder / DONE).read_text(encoding="utf-8"))
        return bool(done["key"] == key and len(np.load(folder / FEATURES, mmap_mode="r")) == done["count"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def restore_index(folder: Path) -> None:
    """Write index.json again from `embedded.json`."""
    write_json(folder / INDEX, json.loads((folder / DONE).read_text(encoding="utf-8")))


def write_embeddings(folder: Path, features: np.ndarray, samples: pd.DataFrame, index: dict[str, Any]) -> None:
    """Write features, samples and, last, the index.

    Args:
        folder: where to.
        features: float32 [N, 2D].
        samples: N rows with `COLUMNS`.
        index: the JSON-like index: key, hashes, size, counts.

    Raises:
        MidnightError: NaN in the features, or the disk is full.
    """
    if not np.isfinite(features).all():
        raise MidnightError(f"{folder}: the model gives NaN or infinite embeddings; nothing was written")
    with atomic_path(folder / FEATURES) as temporary:
        np.save(temporary, np.ascontiguousarray(features, np.float32))
    with atomic_path(folder / SAMPLES) as temporary:
        samples[list(COLUMNS)].to_parquet(temporary, index=False)
    write_json(folder / DONE, index)
    write_json(folder / INDEX, index)


def read_embeddings(folder: Path) -> Embeddings:
    """Embeddings of a folder; features stay on disk until they are read.

    Raises:
        MidnightError: incomplete or damaged.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        features = np.load(folder / FEATURES, mmap_mode="c", allow_pickle=False)
        samples = pd.read_parquet(folder / SAMPLES)
    except (OSError, ValueError) as error:
        raise MidnightError(f"{folder}: no complete embeddings ({error}); run the embed rule again") from error
    if len(features) != len(samples) or len(features) != index.get("count"):
        raise MidnightError(f"{folder}: {len(features)} features for {len(samples)} samples; run the embed rule again")
    return Embeddings(features, samples, index)
