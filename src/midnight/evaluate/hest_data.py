"""HEST-bench's layout on disk: folds, patches and raw counts of one task, checked as they are read."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from midnight.errors import MidnightError

COLUMNS = ("sample_id", "patches_path", "expr_path")
GENES = 50


@dataclass(frozen=True)
class Sample:
    """One sample: its patches (HDF5: img, barcode, coords) and its expression (h5ad)."""

    name: str
    patches: Path
    expression: Path


@dataclass(frozen=True)
class Fold:
    """Names of the samples that a fold trains and tests on."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def read_folds(root: Path) -> tuple[dict[str, Sample], list[Fold]]:
    """All samples by name, and the folds `splits/{train,test}_{k}.csv`, k = 0, 1, …

    Raises:
        MidnightError: no splits, a gap in the folds, a wrong table, a sample in both halves, a missing file.
    """
    numbers = sorted(
        {int(match[1]) for path in root.glob("splits/*.csv") if (match := re.search(r"_(\d+)$", path.stem))}
    )
    if not numbers:
        raise MidnightError(f"{root}: no splits/train_0.csv and splits/test_0.csv; is this a task of HEST-bench?")
    samples: dict[str, Sample] = {}
    folds = []
    for number in range(numbers[-1] + 1):
        halves = [_read_split(root, root / "splits" / f"{half}_{number}.csv", samples) for half in ("train", "test")]
        shared = sorted(set(halves[0]) & set(halves[1]))
        if shared:
            raise MidnightError(f"{root}/splits: fold {number}: sample {shared[0]} is in train and in test")
        folds.append(Fold(*halves))
    return dict(sorted(samples.items())), folds


def _read_split(root: Path, path: Path, samples: dict[str, Sample]) -> tuple[str, ...]:
    if not path.is_file():
        raise MidnightError(f"{path}: missing; a fold needs both train_k.csv and test_k.csv, k without gaps")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or any(row.get(column) is None for row in rows for column in COLUMNS):
        raise MidnightError(f"{path}: needs a row per sample with columns {', '.join(COLUMNS)}")
    names = [row["sample_id"] for row in rows]
    if len(set(names)) != len(names):
        raise MidnightError(f"{path}: a sample is listed twice")
    outside = [name for row in rows for name in (row["patches_path"], row["expr_path"]) if _leaves(name)]
    if outside:
        raise MidnightError(f"{path}: {outside[0]} is not a file of the task's folder; get the task again")
    for row in rows:
        sample = Sample(row["sample_id"], root / row["patches_path"], root / row["expr_path"])
        for file_path in (sample.patches, sample.expression):
            if not file_path.is_file():
                raise MidnightError(f"{file_path}: missing, but named in {path}; get the task again")
        if samples.setdefault(sample.name, sample) != sample:
            raise MidnightError(f"{path}: sample {sample.name} has other files here than in another split")
    return tuple(names)


def _leaves(name: str) -> bool:
    return Path(name).is_absolute() or ".." in Path(name).parts


def read_genes(root: Path) -> list[str]:
    """The task's genes, `var_50genes.json`.

    Raises:
        MidnightError: missing, not 50 or named twice.
    """
    path = root / "var_50genes.json"
    try:
        genes = [str(gene) for gene in json.loads(path.read_text(encoding="utf-8"))["genes"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MidnightError(f"{path}: can't be read as {{'genes': […]}}: {error}") from error
    if len(genes) != GENES or len(set(genes)) != GENES:
        raise MidnightError(f"{path}: {len(set(genes))} different genes in {len(genes)} entries; must be {GENES}")
    return genes


def read_barcodes(sample: Sample) -> list[str]:
    """Barcodes of a sample's patches, in their order.

    Raises:
        MidnightError: the file is damaged, a barcode is there twice, or images and barcodes differ in number.
    """
    try:
        with h5py.File(sample.patches, "r") as file:
            raw = np.asarray(file["barcode"]).ravel()
            images = file["img"].shape[0]
    except (OSError, KeyError) as error:
        raise MidnightError(f"{sample.patches}: can't be read as patches (img, barcode): {error}") from error
    barcodes = [item.decode() if isinstance(item, bytes) else str(item) for item in raw]
    if len(barcodes) != images:
        raise MidnightError(f"{sample.patches}: {images} images but {len(barcodes)} barcodes")
    _check_unique("barcode", barcodes, sample.patches)
    return barcodes


def _check_unique(kind: str, names: list[str], path: Path) -> None:
    if len(set(names)) != len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise MidnightError(f"{path}: {kind} {double} is there twice")


def read_counts(sample: Sample, barcodes: list[str], genes: list[str]) -> np.ndarray:
    """Raw counts of some spots and genes: float64 [spots, genes].

    Raises:
        MidnightError: the file is damaged, a spot or gene is missing or there twice, or a count is NaN, infinite or
            negative.
    """
    import anndata

    try:
        table = anndata.read_h5ad(sample.expression)
    except (OSError, KeyError, ValueError) as error:
        raise MidnightError(f"{sample.expression}: can't be read as h5ad: {' '.join(str(error).split())}") from error
    _check_unique("barcode", list(table.obs_names), sample.expression)
    _check_unique("gene", list(table.var_names), sample.expression)
    missing = [f"spot {item}" for item in barcodes if item not in table.obs_names]
    missing += [f"gene {item}" for item in genes if item not in table.var_names]
    if missing:
        raise MidnightError(f"{sample.expression}: no {missing[0]} ({len(missing)} missing in all)")
    part = table[barcodes, genes].X
    counts = np.asarray(part if isinstance(part, np.ndarray) else part.toarray(), np.float64)
    if not np.isfinite(counts).all() or (counts < 0).any():
        wrong = np.argwhere(~np.isfinite(counts) | (counts < 0))[0]
        raise MidnightError(
            f"{sample.expression}: spot {barcodes[wrong[0]]}, gene {genes[wrong[1]]}: NaN or negative, not a raw count"
        )
    return counts


class HestImages:
    """A sample's patches as a map-style data set of (float32 [3, S, S], NaN, {})."""

    def __init__(self, sample: Sample, transforms: Callable[..., Any]) -> None:
        self.sample, self.transforms = sample, transforms
        self.barcodes = read_barcodes(sample)

    def __len__(self) -> int:
        return len(self.barcodes)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
        from torchvision import tv_tensors

        with h5py.File(self.sample.patches, "r") as file:
            image = torch.from_numpy(file["img"][index]).permute(2, 0, 1)
        return self.transforms(tv_tensors.Image(image)), torch.tensor(float("nan")), {}

    def filename(self, index: int) -> str:
        """Sample and barcode of a patch."""
        return f"{self.sample.name}/{self.barcodes[index]}"
