"""The probe against a second implementation of the protocol in plain numpy: SVD and normal equations."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse.linalg

from midnight.errors import MidnightError
from midnight.evaluate.hest import COMPONENTS, pearson, score_fold

Solver = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


def exact(a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    """The ridge weights by the normal equations: (aᵀa + alpha)⁻¹ aᵀb."""
    return np.linalg.solve(a.T @ a + alpha * np.eye(a.shape[1]), a.T @ b)


def early(a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    """The protocol's: LSQR, stopped at 1e-4."""
    return scipy.sparse.linalg.lsqr(a, b, damp=np.sqrt(alpha), atol=1e-4, btol=1e-4, iter_lim=1000)[0]


def reference_fold(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, solve: Solver
) -> np.ndarray:
    """Pearson r per gene."""
    train_x, test_x = train_x.astype(np.float64), test_x.astype(np.float64)
    mean, scale = train_x.mean(0), train_x.std(0)
    scale[scale == 0] = 1
    train, test = (train_x - mean) / scale, (test_x - mean) / scale
    centre = train.mean(0)
    axes = np.linalg.svd(train - centre, full_matrices=False)[2][: min(256, *train.shape)]
    train = ((train - centre) @ axes.T).astype(np.float32).astype(np.float64)
    test = ((test - centre) @ axes.T).astype(np.float32).astype(np.float64)
    train_y, test_y = np.log(1 + train_y), np.log(1 + test_y)
    alpha = 100 / (train.shape[1] * train_y.shape[1])
    scores = []
    for gene in range(train_y.shape[1]):
        weights = solve(train, train_y[:, gene], alpha)
        scores.append(np.corrcoef(test @ weights, test_y[:, gene])[0, 1])
    return np.array(scores)


def draw(seed: int, n: int, dim: int, genes: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 6))
    x = hidden @ np.random.default_rng(1).normal(size=(6, dim)) + rng.normal(size=(n, dim))
    rate = np.exp(0.4 * hidden @ np.random.default_rng(2).normal(size=(6, genes)) + 1)
    return x.astype(np.float32), rng.poisson(rate).astype(np.float64)


SHAPES = pytest.mark.parametrize(("spots", "dim"), [(300, 64), (200, 96), (400, 90)])


@SHAPES
def test_every_gene_agrees_with_the_definition(spots: int, dim: int) -> None:
    """With lsqr run to its end: the early stop amplifies rounding, so no other arithmetic can follow it to 1e-9."""
    train, test = draw(10, spots, dim), draw(11, 90, dim)
    ours = score_fold(*train, *test, tolerance=1e-14)
    expected = reference_fold(*train, *test, exact)
    assert ours.components == min(COMPONENTS, spots, dim)
    assert np.abs(ours.genes - expected).max() < 1e-9
    assert ours.mean == pytest.approx(expected.mean(), abs=1e-9)
    assert ours.mean > 0.2


@SHAPES
def test_the_protocols_early_stop_agrees_as_far_as_it_is_defined(spots: int, dim: int) -> None:
    """LSQR loses orthogonality before it stops at 1e-4, so another order of summation moves a gene's r by 1e-4."""
    train, test = draw(10, spots, dim), draw(11, 90, dim)
    ours, expected = score_fold(*train, *test), reference_fold(*train, *test, early)
    assert np.abs(ours.genes - expected).max() < 2e-3
    assert ours.mean == pytest.approx(expected.mean(), abs=1e-4)


def test_the_early_stop_is_the_protocols() -> None:
    train, test = draw(10, 300, 64), draw(11, 90, 64)
    stopped, whole = score_fold(*train, *test).genes, score_fold(*train, *test, tolerance=1e-14).genes
    assert np.abs(stopped - whole).max() > 1e-6


def test_no_more_components_than_spots() -> None:
    train, test = draw(10, 120, 300), draw(11, 90, 300)
    score = score_fold(*train, *test)
    assert score.components == 120
    assert score.mean > 0.2


def test_noise_scores_nothing() -> None:
    x, y = draw(1, 300, 40)
    other, _ = draw(2, 100, 40)
    _, unrelated = draw(3, 100, 40)
    assert abs(score_fold(x, y, other, unrelated).mean) < 0.1


def test_the_same_twice_with_the_random_solver() -> None:
    train, test = draw(4, 700, 600), draw(5, 50, 600)
    assert np.array_equal(score_fold(*train, *test).genes, score_fold(*train, *test).genes)


def test_genes_that_dont_vary_are_left_out() -> None:
    train, test = draw(6, 100, 20), draw(7, 40, 20)
    test[1][:, 3] = 2
    score = score_fold(*train, *test)
    assert np.isnan(score.genes[3])
    assert score.mean == pytest.approx(np.delete(score.genes, 3).mean())
    with pytest.raises(MidnightError, match="no gene varies"):
        score_fold(*train, test[0], np.ones_like(test[1]))


def test_bad_embeddings_are_refused() -> None:
    train, test = draw(8, 50, 20), draw(9, 20, 20)
    broken = train[0].copy()
    broken[3, 4] = np.nan
    with pytest.raises(MidnightError, match="NaN"):
        score_fold(broken, train[1], *test)
    with pytest.raises(MidnightError, match="two spots or more"):
        score_fold(*train, test[0][:1], test[1][:1])


def test_pearson_against_numpy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    expected = [np.corrcoef(a[:, gene], b[:, gene])[0, 1] for gene in range(4)]
    assert np.allclose(pearson(a, b), expected, atol=1e-12)
