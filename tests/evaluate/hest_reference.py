"""HEST-bench's probe a second time, from the definitions: numpy and LAPACK, no scikit-learn.

Everything before the regression runs in the embeddings' own dtype, in the protocol's order of operations, so that both
implementations hand the regression the same float32 numbers.

The regression has two ends. Run until nothing changes, it is the exact ridge solution, and one number per gene. At the
protocol's tolerance it is not: rounding delays LSQR by some iterations, so where it stops depends on the last bit of
every sum. What holds on every processor is that the result lies among the iterates around the definition's own stop.
"""

import csv
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
from scipy import linalg

EPS = np.finfo(float).eps


PROTOCOL, END = 1e-4, 1e-14
"""LSQR's tolerance: the protocol's, and one at which it stops because nothing changes any more."""


def reference_fold(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> np.ndarray:
    """Pearson r per gene of the exact ridge solution, float64 [genes]; embeddings [spots, D], counts [spots, genes]."""
    return reference_range(train_x, train_y, test_x, test_y, END, 0)[0]


def reference_range(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, tolerance: float, window: int
) -> np.ndarray:
    """Lowest and highest Pearson r per gene among the iterates this near to LSQR's stop: float64 [2, genes]."""
    train, test = reduce_features(train_x, test_x)
    targets, truth = np.log(1 + train_y), np.log(1 + test_y)
    damp = np.sqrt(100 / (train.shape[1] * targets.shape[1]))
    ranges = []
    for target, values in zip(targets.T, truth.T, strict=True):
        solutions = around_stop(lsqr(train, target, damp, tolerance), window)
        scores = [np.corrcoef(test @ x, values)[0, 1] for x in solutions]
        ranges.append((min(scores), max(scores)))
    return np.array(ranges).T


def reduce_features(train_x: np.ndarray, test_x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings scaled and reduced in their own dtype, rounded to float32, as float64 [spots, components]."""
    mean, scale = train_x.mean(0, np.float64), train_x.astype(np.float64).std(0)
    scale[scale == 0] = 1
    train, test = [(x - mean.astype(x.dtype)) / scale.astype(x.dtype) for x in (train_x, test_x)]
    train, test = principal_components(train, test, min(256, *train.shape))
    return train.astype(np.float32).astype(np.float64), test.astype(np.float32).astype(np.float64)


def principal_components(train: np.ndarray, test: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores on the first k axes [spots, k]; from the covariance, a random projection or the whole SVD, by size."""
    n, dim = train.shape
    centre = train.mean(0)
    if dim <= 1000 and n >= 10 * dim:
        covariance = (train.T @ train - n * centre[:, None] * centre[None]) / train.dtype.type(n - 1)
        axes = np.linalg.eigh(covariance)[1][:, ::-1].T[:k]
        return train @ axes.T - centre[None] @ axes.T, test @ axes.T - centre[None] @ axes.T
    centred = train - centre
    if max(n, dim) > 500 and k < 0.8 * min(n, dim):
        left, values, axes = random_svd(centred, k)
    else:
        left, values, axes = linalg.svd(centred, full_matrices=False)
    return left[:, :k] * values[:k], test @ axes[:k].T - centre[None] @ axes[:k].T


def random_svd(a: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Halko et al. 2011: power iterations on ten directions more than k, drawn from seed 1; u, s, vᵀ."""
    wide = a.shape[0] < a.shape[1]
    a = a.T if wide else a
    q = np.random.RandomState(1).normal(size=(a.shape[1], k + 10)).astype(a.dtype)
    for _ in range(7 if k < 0.1 * min(a.shape) else 4):
        q = linalg.lu(a @ q, permute_l=True)[0]
        q = linalg.lu(a.T @ q, permute_l=True)[0]
    q = linalg.qr(a @ q, mode="economic")[0]
    u, s, vt = linalg.svd(q.T @ a, full_matrices=False)
    u = q @ u
    return (vt[:k].T, s[:k], u[:, :k].T) if wide else (u[:, :k], s[:k], vt[:k])


def around_stop(iterates: Iterator[tuple[np.ndarray, bool]], window: int) -> list[np.ndarray]:
    """The first iterate that stops, with up to so many before and after it."""
    before = []
    for x, stops in iterates:
        before.append(x)
        if stops:
            break
    return before[-window - 1 :] + [x for x, _ in islice(iterates, window)]


def lsqr(
    a: np.ndarray, b: np.ndarray, damp: float, tolerance: float, limit: int = 1000
) -> Iterator[tuple[np.ndarray, bool]]:
    """LSQR (Paige and Saunders 1982) on |ax - b|² + damp²|x|²: each iterate x [k], and whether it is time to stop."""
    x = np.zeros(a.shape[1])
    size = beta = np.linalg.norm(b)
    u = b * (1 / beta)
    v = a.T @ u
    alpha = np.linalg.norm(v)
    v = v * (1 / alpha)
    w, phi_bar, rho_bar = v.copy(), beta, alpha
    a_norm = d_norm = damped = 0.0
    for _ in range(limit):
        # Golub and Kahan's bidiagonalisation.
        u = a @ v - alpha * u
        beta = np.linalg.norm(u)
        u = u * (1 / beta)
        a_norm = np.sqrt(a_norm**2 + alpha**2 + beta**2 + damp**2)
        v = a.T @ u - beta * v
        alpha = np.linalg.norm(v)
        v = v * (1 / alpha)
        # One rotation takes the damping in, another one the new column.
        rho_damped = np.hypot(rho_bar, damp)
        damped += (damp / rho_damped * phi_bar) ** 2
        phi_bar *= rho_bar / rho_damped
        rho = np.hypot(rho_damped, beta)
        c, s = rho_damped / rho, beta / rho
        rho_bar, phi, phi_bar = -c * alpha, c * phi_bar, s * phi_bar
        d_norm += (np.linalg.norm(w) / rho) ** 2
        x, w = x + phi / rho * w, v - s * alpha / rho * w
        # The residual, the normal equations' residual and the condition number, as estimated on the way.
        residual = np.sqrt(phi_bar**2 + damped)
        normal = alpha * abs(s * phi)
        small = residual / size <= tolerance * (1 + a_norm * np.linalg.norm(x) / size)
        settled = 1 + normal / (a_norm * residual + EPS) <= 1
        yield x, small or normal <= tolerance * (a_norm * residual + EPS) or settled or a_norm * np.sqrt(d_norm) >= 1e8


def reference_task(root: Path, embeddings: dict[str, np.ndarray], fold: Callable[..., Any] = reference_fold) -> list:
    """What `fold` says of each fold of a task on disk: by default Pearson r per gene.

    Args:
        root: the task, in HEST-bench's layout.
        embeddings: by sample, in the order of its patches [spots, D].
        fold: called with train_x, train_y, test_x, test_y.
    """
    genes = json.loads((root / "var_50genes.json").read_text())["genes"]
    counts = {}
    for name in embeddings:
        with h5py.File(root / "patches" / f"{name}.h5") as file:
            barcodes = file["barcode"][:].ravel().astype(str)
        table = anndata.read_h5ad(root / "adata" / f"{name}.h5ad").to_df()
        counts[name] = table.loc[barcodes, genes].to_numpy(np.float64)
    results = []
    for number in range(len(list((root / "splits").glob("train_*.csv")))):
        halves = []
        for half in ("train", "test"):
            with (root / "splits" / f"{half}_{number}.csv").open() as file:
                names = [row["sample_id"] for row in csv.DictReader(file)]
            halves += [np.concatenate([values[name] for name in names]) for values in (embeddings, counts)]
        results.append(fold(*halves))
    return results
