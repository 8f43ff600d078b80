"""Cached embeddings as data sets that eva's data module and samplers understand."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from midnight.evaluate.store import Embeddings

Batch = tuple[Tensor, Tensor]


class FeatureDataset(Dataset[Batch]):
    """Embeddings and targets in memory (or mapped), with the items of eva's EmbeddingsClassificationDataset.

    A loader that knows `__getitems__` gets a whole batch by one indexing; use `as_is` as its collate function.
    """

    def __init__(self, features: np.ndarray, targets: np.ndarray, binary: bool) -> None:
        """Take over the arrays.

        Args:
            features: float32 or float16 [n, D]; items are float32.
            targets: class numbers [n].
            binary: targets become float32, as BCEWithLogitsLoss wants them; else int64.
        """
        self.features = torch.from_numpy(features)
        self.targets = torch.from_numpy(targets.astype(np.float32 if binary else np.int64))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Batch:
        return self.features[index].float(), self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Features float32 [B, D] and targets [B] of several samples."""
        chosen = torch.as_tensor(indices)
        return self.features[chosen].float(), self.targets[chosen]

    def load_target(self, index: int) -> int:
        """The class number of a sample, as eva's samplers ask for it."""
        return int(self.targets[index])


class SlideDataset(FeatureDataset):
    """A sample is a slide: its tiles' embeddings padded to `max_tiles` rows with −inf, as eva's ABMIL masks them."""

    def __init__(self, features: np.ndarray, targets: np.ndarray, groups: Sequence[str], binary: bool, tiles: int):
        """Group tiles by slide.

        Args:
            features: float32 or float16 [n, D], one row per tile.
            targets: class number of each tile's slide [n].
            groups: slide of each tile [n].
            binary: as in FeatureDataset.
            tiles: rows that a slide is padded to.
        """
        names, first, number = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
        super().__init__(features, targets[first], binary)
        self.members = [torch.from_numpy(np.flatnonzero(number == index)) for index in range(len(names))]
        self.tiles = tiles

    def __getitem__(self, index: int) -> Batch:
        rows = self.features[self.members[index]][: self.tiles]
        padded = torch.full((self.tiles, rows.shape[1]), float("-inf"))
        padded[: len(rows)] = rows
        return padded, self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Bags float32 [B, tiles, D] and targets [B] of several slides."""
        items = [self[int(index)] for index in indices]
        return torch.stack([bag for bag, _ in items]), torch.stack([target for _, target in items])


def as_is(batch: Batch) -> Batch:
    """The collate function for data sets that give whole batches."""
    return batch


def take(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of an array: a view when they are consecutive (nothing is read from disk yet), else a copy."""
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return array[rows[0] : rows[0] + len(rows)]
    return array[rows]


def feature_dataset(
    embeddings: Embeddings, rows: np.ndarray, pooling: str, binary: bool, tiles: int | None = None
) -> FeatureDataset:
    """The data set of some rows and one pooling; with `tiles`, a sample is a slide instead of a row."""
    features = take(embeddings.pooled(pooling), rows)
    targets = embeddings.samples["target"].to_numpy()[rows]
    if tiles is None:
        return FeatureDataset(features, targets, binary)
    return SlideDataset(features, targets, embeddings.samples["group"].to_numpy()[rows].tolist(), binary, tiles)
