"""The probe and whole tasks against a second implementation of the protocol (hest_reference), and against HEST."""

import functools
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import sklearn
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from midnight.config import Evaluation
from midnight.errors import MidnightError
from midnight.evaluate import hest as hest_module
from midnight.evaluate import registry
from midnight.evaluate.hest import COMPONENTS, TOLERANCE, pearson, score_fold
from midnight.evaluate.hest_data import HestImages, read_folds
from midnight.evaluate.records import Record, aggregate, read_record
from midnight.evaluate.score import score_tasks
from midnight.evaluate.store import EmbeddingWriter
from midnight.report.scores import load_scores
from midnight.report.tables import build_tables
from tests.evaluate.hest_example import GENES, write_counts, write_patches, write_task
from tests.evaluate.hest_reference import END, PROTOCOL, reference_fold, reference_range, reference_task

DIM = 16
NINE = [name for name, task in registry.load_tasks().items() if task.kind == "hest" and task.data == "real"]
LAYOUTS = {0: ((0, 0, 1, 2), 16), 1: ((0, 1), 20), 2: ((0, 0, 1, 1), 90)}
"""Patient of each sample, and spots per sample, by the task's number modulo 3; the last has 10 D spots to train on."""


def draw(seed: int, n: int, dim: int, genes: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings float32 [n, dim] with a decaying spectrum, and counts [n, genes] that six directions drive."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, dim)) * np.arange(1.0, dim + 1) ** -0.8
    x = hidden @ np.linalg.qr(np.random.default_rng(1).normal(size=(dim, dim)))[0]
    rate = np.exp(0.4 * hidden[:, :6] @ np.random.default_rng(2).normal(size=(min(6, dim), genes)) + 1)
    return x.astype(np.float32), rng.poisson(rate).astype(np.float64)


# One fold


SHAPES = pytest.mark.parametrize(
    ("spots", "dim"),
    [(300, 64), (120, 300), (700, 64), (700, 400), (420, 640)],
    ids=["svd", "fewer-spots", "covariance", "random", "random-wide"],
)
"""Train spots and embedding size: each of PCA's solvers."""
EXACT = 1e-9
"""How far LSQR run to its end may be from the definition, per gene; measured: 1.2e-12."""


def draw_fold(spots: int, dim: int, dtype: type = np.float32) -> tuple[np.ndarray, ...]:
    (train_x, train_y), (test_x, test_y) = draw(10, spots, dim), draw(11, 90, dim)
    return train_x.astype(dtype), train_y, test_x.astype(dtype), test_y


@functools.cache
def define_fold(spots: int, dim: int, dtype: type = np.float32) -> np.ndarray:
    """Pearson r per gene of `draw_fold` by the definition."""
    return reference_fold(*draw_fold(spots, dim, dtype))


@SHAPES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_run_to_its_end_every_gene_is_the_definitions(spots: int, dim: int, dtype: type) -> None:
    ours, expected = score_fold(*draw_fold(spots, dim, dtype), tolerance=END), define_fold(spots, dim, dtype)
    assert ours.components == min(COMPONENTS, spots, dim)
    assert np.abs(ours.genes - expected).max() < EXACT
    assert ours.mean == pytest.approx(expected.mean(), abs=EXACT)
    assert ours.mean > 0.2


@SHAPES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_at_the_protocols_tolerance_every_gene_is_near_the_definitions_stop(spots: int, dim: int, dtype: type) -> None:
    fold = draw_fold(spots, dim, dtype)
    ours = score_fold(*fold)
    assert_near_the_stop(ours.genes, reference_range(*fold, PROTOCOL, DELAY))
    assert ours.mean == pytest.approx(reference_range(*fold, PROTOCOL, 0)[0].mean(), abs=FOLD)


DELAY, MARGIN = 10, 5e-4
"""LSQR's rounding delays: iterations by which two processors' stops may differ, and what they differ by besides, in r.

Measured on four BLAS kernels, with and without AVX-512 in numpy, one and two threads, float32 and float64, and with
inputs changed by one rounding: at most 6 iterations and 2.5e-4 (benchmarks/results, HEST on other processors).
"""
FOLD = 5e-4
"""How far the mean of a fold's 50 genes may be from the definition's; measured: 1.9e-4."""


def assert_near_the_stop(genes: np.ndarray, bounds: np.ndarray) -> None:
    """r per gene [..., genes] lies among the definition's iterates around its stop [..., 2, genes]."""
    low, high = bounds[..., 0, :], bounds[..., 1, :]
    assert (genes > low - MARGIN).all()
    assert (genes < high + MARGIN).all()


def vary(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    transform: Callable = np.log1p,
    intercept: bool = False,
    alpha: float = 1.0,
    fit_on: Callable = lambda train, test: train,
    dtype: type = np.float32,
    scale: bool = True,
) -> np.ndarray:
    """The protocol with one thing changed, by scikit-learn, LSQR run to its end: Pearson r per gene."""
    train_x, test_x = train_x.astype(dtype), test_x.astype(dtype)
    components = min(COMPONENTS, *train_x.shape)
    steps = [StandardScaler()] if scale else []
    reduction = make_pipeline(*steps, PCA(components, random_state=1)).fit(fit_on(train_x, test_x))
    alpha *= 100 / (components * train_y.shape[1])
    ridge = Ridge(alpha, solver="lsqr", fit_intercept=intercept, max_iter=1000, tol=END)
    ridge.fit(reduction.transform(train_x).astype(float), transform(train_y))
    return pearson(ridge.predict(reduction.transform(test_x).astype(float)), transform(test_y))


MUTATIONS: dict[str, dict] = {
    "no log1p": {"transform": lambda counts: counts},
    "intercept": {"intercept": True},
    "alpha without the genes": {"alpha": 50},
    "PCA fitted on test spots too": {"fit_on": lambda train, test: np.concatenate([train, test])},
    "float64": {"dtype": np.float64},
    "not standardised": {"scale": False},
}


@SHAPES
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_another_protocol_is_far_away(spots: int, dim: int, mutation: str) -> None:
    """By a hundred times what `test_run_to_its_end_every_gene_is_the_definitions` allows, in every solver."""
    other = vary(*draw_fold(spots, dim), **MUTATIONS[mutation])
    assert np.abs(other - define_fold(spots, dim)).max() > 100 * EXACT


def test_the_tolerance_is_the_one_that_the_protocol_relies_on() -> None:
    assert Ridge().tol == TOLERANCE == PROTOCOL


def find_trainer(checkout: Path) -> Callable:
    """The function of a checkout of HEST that fits the regression; its module needs no other part of HEST."""
    for place in ("src/hest/bench/trainer.py", "src/hest/bench/training/trainer.py"):
        if (checkout / place).is_file():
            spec = importlib.util.spec_from_file_location("hest_trainer", checkout / place)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            for name in ("train_test_reg", "train_test_ridge"):
                if hasattr(module, name):
                    return getattr(module, name)
    pytest.fail(f"MIDNIGHT_HEST: {checkout} has no train_test_reg in src/hest/bench/trainer.py; is it a HEST checkout?")


@pytest.mark.parametrize(("spots", "dim"), [(700, 64), (700, 400)])
def test_every_gene_agrees_with_hest_itself(spots: int, dim: int) -> None:
    if "MIDNIGHT_HEST" not in os.environ:
        pytest.skip("set MIDNIGHT_HEST to a checkout of github.com/mahmoodlab/HEST to compare with it")
    fit = find_trainer(Path(os.environ["MIDNIGHT_HEST"]))
    train, test = draw(10, spots, dim), draw(11, 90, dim)
    pipe = make_pipeline(StandardScaler(), PCA(n_components=min(256, dim), random_state=1))
    x = [torch.Tensor(pipe.fit_transform(train[0])), torch.Tensor(pipe.transform(test[0]))]
    result, _ = fit(*x, np.log1p(train[1]), np.log1p(test[1]), random_state=1, genes=GENES)
    theirs = {item["name"]: item["pearson_corr"] for item in result["pearson_corrs"]}
    ours = score_fold(*train, *test)
    assert max(abs(ours.genes[i] - theirs[name]) for i, name in enumerate(GENES)) < 1e-9
    assert ours.mean == pytest.approx(result["pearson_mean"], abs=1e-9)


def test_noise_scores_nothing() -> None:
    x, y = draw(1, 300, 40)
    other, _ = draw(2, 100, 40)
    _, unrelated = draw(3, 100, 40)
    assert abs(score_fold(x, y, other, unrelated).mean) < 0.1


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


# Whole tasks


def write_embeddings(root: Path, folder: Path, seed: int) -> dict[str, np.ndarray]:
    """Embeddings of a task as the embed rule leaves them, by sample float32 [spots, 2 DIM]; brightness and noise."""
    rng = np.random.default_rng(seed)
    embeddings, rows = {}, []
    for name, sample in read_folds(root)[0].items():
        images = HestImages(sample, lambda image: image)
        with h5py.File(sample.patches) as file:
            level = file["img"][:].mean((1, 2, 3)) / 255
        noise = rng.normal(size=(len(level), 2 * DIM)) * np.arange(1.0, 2 * DIM + 1) ** -0.7
        embeddings[name] = (noise + level[:, None]).astype(np.float32)
        rows += [(name, images.filename(i), float("nan"), images.filename(i)) for i in range(len(level))]
    features = np.concatenate(list(embeddings.values()))
    index = {"key": "k", "count": len(rows), "data_hash": f"d{seed}", "model_hash": "m", "precision": "float32"}
    with EmbeddingWriter(folder, "k", features.shape, "float32") as writer:
        writer.append(features, rows)
        writer.finish(index)
    return embeddings


def call_score(data: Path, folders: dict[str, Path], output: Path) -> dict[tuple[str, str], Path]:
    model = "vitg14-initial"
    poolings = ["cls", "cls_mean"]
    places = {(p, task): output / "scores" / model / "224" / p / f"{task}.json" for p in poolings for task in folders}
    evaluation = Evaluation(protocol="paper", data_root=str(data), accelerator="cpu")
    score_tasks(model, None, 224, list(folders), poolings, evaluation, folders, places, "real", 0)
    return places


@dataclass(frozen=True)
class Nine:
    """The nine tasks by (pooling, task): records at the protocol's tolerance and of LSQR run to its end, and by the
    definition r per gene of each fold at its end [folds, genes] and around its stop [folds, 2, genes]."""

    records: dict[tuple[str, str], Record]
    ended: dict[tuple[str, str], Record]
    exact: dict[tuple[str, str], np.ndarray]
    stops: dict[tuple[str, str], np.ndarray]
    output: Path

    def folds(self, pooling: str, task: str) -> np.ndarray:
        """Means over the genes at the end: float64 [folds]."""
        return self.exact[pooling, task].mean(-1)


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> Nine:
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("results")
    tasks = registry.load_tasks()
    around = functools.partial(reference_range, tolerance=PROTOCOL, window=DELAY)
    folders, exact, stops = {}, {}, {}
    for number, name in enumerate(NINE):
        patients, spots = LAYOUTS[number % 3]
        root = write_task(data / tasks[name].dataset.root, len(patients), spots, patients, number)
        folders[name] = output / "embeddings" / name
        embeddings = write_embeddings(root, folders[name], number)
        for pooling, dim in (("cls", DIM), ("cls_mean", 2 * DIM)):
            chosen = {key: x[:, :dim] for key, x in embeddings.items()}
            exact[pooling, name] = np.array(reference_task(root, chosen))
            stops[pooling, name] = np.array(reference_task(root, chosen, around))
    records = read_places(call_score(data, folders, output))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hest_module, "score_fold", functools.partial(score_fold, tolerance=END))
        ended = read_places(call_score(data, folders, output / "ended"))
    return Nine(records, ended, exact, stops, output)


def read_places(places: dict[tuple[str, str], Path]) -> dict[tuple[str, str], Record]:
    return {place: read_record(path) for place, path in places.items()}


def test_run_to_their_end_every_gene_fold_and_task_of_the_nine_are_the_definitions(nine: Nine) -> None:
    assert len(nine.ended) == 2 * 9
    for place, record in nine.ended.items():
        ours, folds = np.array(record.extra["per_gene"]), nine.folds(*place)
        assert ours.shape == (len(set(LAYOUTS[NINE.index(record.task) % 3][0])), 50)
        assert np.abs(ours - nine.exact[place]).max() < EXACT
        assert record.values == pytest.approx(folds, abs=EXACT)
        assert record.mean == pytest.approx(np.mean(folds), abs=EXACT)
        assert record.stdev == pytest.approx(np.std(folds, ddof=0), abs=EXACT)
        assert record.mean > 0.1
    assert len({record.mean for record in nine.ended.values()}) == 18


def test_every_gene_fold_and_task_of_the_nine_is_near_the_definitions_stop(nine: Nine) -> None:
    assert len(nine.records) == 2 * 9
    for place, record in nine.records.items():
        genes = np.array(record.extra["per_gene"])
        assert_near_the_stop(genes, nine.stops[place])
        assert record.values == pytest.approx(genes.mean(-1), abs=EXACT)
        assert record.mean == pytest.approx(genes.mean(), abs=EXACT)
        assert record.stdev == pytest.approx(np.std(genes.mean(-1), ddof=0), abs=EXACT)
        assert record.extra["genes"] == GENES
        assert (record.protocol, record.seed, record.model_hash) == ("paper", 0, "m")
        assert record.versions["scikit-learn"] == sklearn.__version__


def test_the_overall_score_is_the_mean_of_the_nine(nine: Nine) -> None:
    rows = build_tables(load_scores(sorted((nine.output / "ended" / "scores").rglob("*.json"))))[0].rows
    for pooling in ("cls", "cls_mean"):
        tasks = [nine.folds(pooling, name) for name in NINE]
        overall, spread = np.mean([folds.mean() for folds in tasks]), np.mean([np.std(folds) for folds in tasks])
        assert aggregate(nine.ended[pooling, name] for name in NINE) == pytest.approx(overall, abs=EXACT)
        cell = next(row for row in rows if row.pooling == pooling).cells["hest"]
        assert cell.value == pytest.approx(overall, abs=EXACT)
        assert cell.error == pytest.approx(spread, abs=EXACT)
        assert set(cell.tasks) == set(NINE)


def test_folds_of_several_samples_per_patient_share_no_patient(tmp_path: Path) -> None:
    patients = (0, 0, 1, 2, 2)
    _, folds = read_folds(write_task(tmp_path / "T", 5, 4, patients))
    assert [fold.test for fold in folds] == [("S0", "S1"), ("S2",), ("S3", "S4")]
    for fold in folds:
        train, test = [{patients[int(name[1:])] for name in half} for half in (fold.train, fold.test)]
        assert not train & test


# Faults


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def spoil_count(root: Path, value: float) -> None:
    counts = np.ones((6, 50), np.float32)
    counts[1, 5] = value
    write_counts(root / "adata" / "S1.h5ad", counts, [f"S1x{index}" for index in range(6)], GENES)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing fold": (lambda root: (root / "splits" / "train_1.csv").unlink(), r"train_1\.csv: missing"),
    "cut patches": (lambda root: cut(root / "patches" / "S1.h5"), r"S1\.h5: can't be read as patches"),
    "cut expression": (lambda root: cut(root / "adata" / "S1.h5ad"), r"S1\.h5ad: can't be read as h5ad"),
    "no expression": (lambda root: (root / "adata" / "S1.h5ad").unlink(), r"S1\.h5ad: missing, but named in"),
    "NaN": (lambda root: spoil_count(root, np.nan), r"S1\.h5ad: spot S1x1, gene G5: NaN or negative"),
    "double spot": (
        lambda root: write_patches(root / "patches" / "S1.h5", ["S1x0", "S1x0"], np.array([50, 60])),
        r"S1\.h5: barcode S1x0 is there twice",
    ),
    "other spots": (
        lambda root: write_patches(root / "patches" / "S1.h5", ["S1x1", "S1x0"], np.array([50, 60])),
        r"S1\.h5: other spots than were embedded; run the embed rule again",
    ),
    "other genes": (
        lambda root: (root / "var_50genes.json").write_text('{"genes": ["G0"]}'),
        r"var_50genes\.json: 1 different genes in 1 entries; must be 50",
    ),
    "gene not measured": (
        lambda root: (root / "var_50genes.json").write_text(str({"genes": [*GENES[1:], "X"]}).replace("'", '"')),
        r"S0\.h5ad: no gene X",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_data_is_one_line_and_nothing_is_written(tmp_path: Path, fault: str) -> None:
    spoil, words = FAULTS[fault]
    root = write_task(tmp_path / "data" / "hest" / "IDC", spots=6)
    write_embeddings(root, tmp_path / "embeddings", 0)
    spoil(root)
    with pytest.raises(MidnightError, match=words) as caught:
        call_score(tmp_path / "data", {"hest-idc": tmp_path / "embeddings"}, tmp_path / "results")
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
