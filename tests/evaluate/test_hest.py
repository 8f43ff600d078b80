"""The probe and whole tasks against a second implementation of the protocol (hest_reference), and against HEST."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import sklearn
import torch
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from midnight.config import Evaluation
from midnight.errors import MidnightError
from midnight.evaluate import registry
from midnight.evaluate.hest import COMPONENTS, pearson, score_fold
from midnight.evaluate.hest_data import HestImages, read_folds
from midnight.evaluate.records import Record, aggregate, read_record
from midnight.evaluate.score import score_tasks
from midnight.evaluate.store import EmbeddingWriter
from midnight.report.scores import load_scores
from midnight.report.tables import build_tables
from tests.evaluate.hest_example import GENES, write_counts, write_patches, write_task
from tests.evaluate.hest_reference import reference_fold, reference_task

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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("spots", "dim"),
    [(300, 64), (120, 300), (700, 64), (700, 400), (420, 640)],
    ids=["svd", "fewer-spots", "covariance", "random", "random-wide"],
)
def test_every_gene_agrees_with_the_definition(spots: int, dim: int, dtype: type) -> None:
    """In each of PCA's solvers, with the protocol's early stop."""
    (train_x, train_y), (test_x, test_y) = draw(10, spots, dim), draw(11, 90, dim)
    ours = score_fold(train_x.astype(dtype), train_y, test_x.astype(dtype), test_y)
    expected = reference_fold(train_x.astype(dtype), train_y, test_x.astype(dtype), test_y)
    assert ours.components == min(COMPONENTS, spots, dim)
    assert np.abs(ours.genes - expected).max() < 1e-9
    assert ours.mean == pytest.approx(expected.mean(), abs=1e-9)
    assert ours.mean > 0.2


def test_without_the_early_stop_it_is_the_exact_ridge() -> None:
    """The normal equations; what the stop changes is small, but there."""
    train, test = draw(10, 300, 64), draw(11, 90, 64)
    whole, stopped = score_fold(*train, *test, tolerance=1e-14).genes, score_fold(*train, *test).genes
    reduction = make_pipeline(StandardScaler(), PCA(64))
    a, b = [
        x.astype(np.float32).astype(float) for x in (reduction.fit_transform(train[0]), reduction.transform(test[0]))
    ]
    weights = np.linalg.solve(a.T @ a + 100 / (64 * 50) * np.eye(64), a.T @ np.log1p(train[1]))
    assert np.abs(whole - pearson(b @ weights, np.log1p(test[1]))).max() < 1e-9
    assert 1e-6 < np.abs(stopped - whole).max() < 0.05


def test_the_embeddings_precision_is_the_protocols() -> None:
    """Float32 is scaled and reduced as float32; a detour over float64 moves genes by more than 1e-6."""
    train, test = draw(10, 300, 64), draw(11, 90, 64)
    wide = score_fold(train[0].astype(float), train[1], test[0].astype(float), test[1])
    assert np.abs(score_fold(*train, *test).genes - wide.genes).max() > 1e-6


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


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[tuple[str, str], Record], dict, Path]:
    """Records of the nine tasks by (pooling, task); r of every gene by the reference likewise; the results folder."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("results")
    tasks = registry.load_tasks()
    folders, expected = {}, {}
    for number, name in enumerate(NINE):
        patients, spots = LAYOUTS[number % 3]
        root = write_task(data / tasks[name].dataset.root, len(patients), spots, patients, number)
        folders[name] = output / "embeddings" / name
        embeddings = write_embeddings(root, folders[name], number)
        for pooling, dim in (("cls", DIM), ("cls_mean", 2 * DIM)):
            expected[pooling, name] = reference_task(root, {key: x[:, :dim] for key, x in embeddings.items()})
    places = call_score(data, folders, output)
    return {place: read_record(path) for place, path in places.items()}, expected, output


def test_every_gene_fold_and_task_of_the_nine(nine: tuple[dict[tuple[str, str], Record], dict, Path]) -> None:
    records, expected, _ = nine
    assert len(records) == 2 * 9
    for place, record in records.items():
        ours = np.array(record.extra["per_gene"])
        assert ours.shape == (len(set(LAYOUTS[NINE.index(record.task) % 3][0])), 50)
        assert np.abs(ours - expected[place]).max() < 1e-9
        folds = [genes.mean() for genes in expected[place]]
        assert record.values == pytest.approx(folds, abs=1e-9)
        assert record.mean == pytest.approx(np.mean(folds), abs=1e-9)
        assert record.stdev == pytest.approx(np.std(folds, ddof=0), abs=1e-9)
        assert record.extra["genes"] == GENES
        assert (record.protocol, record.seed, record.model_hash) == ("paper", 0, "m")
        assert record.versions["scikit-learn"] == sklearn.__version__
        assert record.mean > 0.1
    assert len({record.mean for record in records.values()}) == 18


def test_the_overall_score_is_the_mean_of_the_nine(nine: tuple[dict[tuple[str, str], Record], dict, Path]) -> None:
    records, expected, output = nine
    rows = build_tables(load_scores(sorted((output / "scores").rglob("*.json"))))[0].rows
    for pooling in ("cls", "cls_mean"):
        tasks = [[genes.mean() for genes in expected[pooling, name]] for name in NINE]
        overall, spread = np.mean([np.mean(folds) for folds in tasks]), np.mean([np.std(folds) for folds in tasks])
        assert aggregate(records[pooling, name] for name in NINE) == pytest.approx(overall, abs=1e-9)
        cell = next(row for row in rows if row.pooling == pooling).cells["hest"]
        assert cell.value == pytest.approx(overall, abs=1e-9)
        assert cell.error == pytest.approx(spread, abs=1e-9)
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
