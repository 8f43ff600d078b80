"""A tiny task in HEST-bench's layout."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd

GENES = [f"G{index}" for index in range(50)]


def write_task(
    root: Path, samples: int = 3, spots: int = 12, patients: Sequence[int] | None = None, seed: int = 0
) -> Path:
    """Samples S0, S1, … of these patients (by default one each); each fold leaves a patient out."""
    rng = np.random.default_rng(seed)
    for folder in ("splits", "patches", "adata"):
        (root / folder).mkdir(parents=True)
    names = [f"S{index}" for index in range(samples)]
    owner = dict(zip(names, patients or range(samples), strict=True))
    weights = rng.uniform(0.5, 2, 60)
    for name in names:
        barcodes = [f"{name}x{index}" for index in range(spots)]
        levels = rng.integers(30, 220, spots)
        write_patches(root / "patches" / f"{name}.h5", barcodes, levels)
        counts = rng.poisson(levels[:, None] / 10 * weights).astype(np.float32)
        # Another order than the patches': rows are found by barcode.
        order = rng.permutation(spots)
        genes = [*GENES, *(f"H{index}" for index in range(10))]
        write_counts(root / "adata" / f"{name}.h5ad", counts[order], [barcodes[index] for index in order], genes)
    for fold, patient in enumerate(dict.fromkeys(owner.values())):
        write_split(root / "splits" / f"train_{fold}.csv", [name for name in names if owner[name] != patient])
        write_split(root / "splits" / f"test_{fold}.csv", [name for name in names if owner[name] == patient])
    (root / "var_50genes.json").write_text(json.dumps({"genes": GENES}))
    return root


def write_patches(path: Path, barcodes: list[str], levels: np.ndarray) -> None:
    noise = np.random.default_rng(1).integers(-20, 20, (len(levels), 32, 32, 3))
    with h5py.File(path, "w") as file:
        file["img"] = np.clip(levels[:, None, None, None] + noise, 0, 255).astype(np.uint8)
        file["barcode"] = np.array(barcodes, "S")[:, None]
        file["coords"] = np.zeros((len(barcodes), 2), np.int64)


def write_counts(path: Path, counts: np.ndarray, barcodes: list[str], genes: list[str]) -> None:
    obs, var = pd.DataFrame(index=pd.Index(barcodes, dtype=object)), pd.DataFrame(index=pd.Index(genes, dtype=object))
    anndata.AnnData(X=counts, obs=obs, var=var).write_h5ad(path)


def write_split(path: Path, names: list[str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sample_id", "patches_path", "expr_path"])
        writer.writerows([name, f"patches/{name}.h5", f"adata/{name}.h5ad"] for name in names)
