"""The HEST-bench probe: PCA and ridge regression from embeddings to the expression of 50 genes.

Written from the protocol's description (HEST-1k, Jaume et al. 2024), not from its code, which has another licence.

**Digits that hold.** The protocol stops LSQR early, at a tolerance of 1e-4. In floating point LSQR loses orthogonality,
and each rounding delays it a little: on another processor (another BLAS kernel, numpy without AVX-512) it stops some
iterations earlier or later. So the same embeddings give a gene's r up to 5e-3 apart, a fold's mean and a
task 2e-4, and the mean of nine tasks 5e-5, where the ± over folds is 4e-2 (`benchmarks/hest_processors.py`). Run to its
end, LSQR gives the same r everywhere, to 1e-9. Records name the BLAS, its kernel and the instruction sets, so that two
scores that differ in the fourth digit can be understood.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from midnight.errors import MidnightError
from midnight.evaluate.hest_data import Fold, read_barcodes, read_counts, read_folds, read_genes
from midnight.evaluate.store import Embeddings

COMPONENTS, STRENGTH, SEED, ITERATIONS = 256, 100.0, 1, 1000
TOLERANCE = 1e-4
"""Of lsqr: scikit-learn's default, which the protocol relies on. It stops well before the exact ridge solution."""

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldScore:
    """One fold: Pearson r per gene float64 [genes] (NaN where a gene is constant), PCA components used."""

    genes: np.ndarray
    components: int

    @property
    def mean(self) -> float:
        """Mean over the genes that vary."""
        return float(np.nanmean(self.genes))


def score_fold(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, tolerance: float = TOLERANCE
) -> FoldScore:
    """Fit on the training spots, correlate on the pooled test spots.

    Scaling and PCA run in the embeddings' own dtype, the regression in float64, as in the protocol.

    Args:
        train_x, test_x: embeddings [spots, D], float32 as they are stored.
        train_y, test_y: raw counts [spots, genes].
        tolerance: of lsqr.

    Returns:
        Pearson r per gene, and how many components there were: 256, or fewer where spots or D are fewer.

    Raises:
        MidnightError: fewer than two spots, NaN in the embeddings, or no gene varies.
    """
    if min(len(train_x), len(test_x)) < 2:
        raise MidnightError(f"a fold needs two spots or more in train and test, not {len(train_x)} and {len(test_x)}")
    if not (np.isfinite(train_x).all() and np.isfinite(test_x).all()):
        raise MidnightError("embeddings hold NaN or infinity; compute them again")
    components = min(COMPONENTS, *train_x.shape)
    reduction = make_pipeline(StandardScaler(), PCA(components, random_state=SEED))
    fitted = reduction.fit_transform(train_x).astype(np.float32).astype(np.float64)
    held_out = reduction.transform(test_x).astype(np.float32).astype(np.float64)
    predicted = predict(fitted, np.log1p(train_y), held_out, tolerance)
    scores = pearson(predicted, np.log1p(test_y))
    if np.isnan(scores).all():
        raise MidnightError("no gene varies among the test spots: nothing to correlate")
    if constant := int(np.isnan(scores).sum()):
        LOG.warning("%d genes don't vary among a fold's test spots and are left out of its mean", constant)
    return FoldScore(scores, components)


def predict(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Ridge regression (lsqr, no intercept, alpha = 100 / (components · genes)): float64 [test spots, genes]."""
    alpha = STRENGTH / (train_x.shape[1] * train_y.shape[1])
    ridge = Ridge(alpha, solver="lsqr", fit_intercept=False, max_iter=ITERATIONS, tol=tolerance, random_state=SEED)
    return ridge.fit(train_x, train_y).predict(test_x).reshape(len(test_x), -1)


def pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of matching columns: [n, genes] ×2 → float64 [genes]; NaN for a constant column."""
    varies = (np.ptp(a, axis=0) > 0) & (np.ptp(b, axis=0) > 0)
    a, b = a - a.mean(0), b - b.mean(0)
    scale = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(varies & (scale > 0), (a * b).sum(0) / scale, np.nan)


def score_folds(root: Path, stored: Embeddings, pooling: str) -> tuple[list[float], dict[str, Any]]:
    """Mean Pearson r of each fold of a HEST task, with r per gene and fold and the number of PCA components.

    Raises:
        MidnightError: folds, counts or embeddings are missing or don't fit each other.
    """
    samples, folds = read_folds(root)
    genes = read_genes(root)
    features = stored.pooled(pooling)
    x, y = {}, {}
    for name, sample in samples.items():
        barcodes = read_barcodes(sample)
        rows = stored.rows(name)
        if stored.samples["name"].to_numpy()[rows].tolist() != [f"{name}/{barcode}" for barcode in barcodes]:
            raise MidnightError(f"{sample.patches}: other spots than were embedded; run the embed rule again")
        x[name], y[name] = np.asarray(features[rows]), read_counts(sample, barcodes, genes)

    def join(values: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
        return np.concatenate([values[name] for name in names])

    def fit(fold: Fold) -> Any:
        return score_fold(join(x, fold.train), join(y, fold.train), join(x, fold.test), join(y, fold.test))

    with threadpool_limits(1):  # another number of threads rounds otherwise, which lsqr's early stop makes larger
        scores = [fit(fold) for fold in folds]
    per_gene = [[None if np.isnan(r) else float(r) for r in score.genes] for score in scores]
    extra = {"genes": genes, "per_gene": per_gene, "components": [score.components for score in scores]}
    return [score.mean for score in scores], extra
