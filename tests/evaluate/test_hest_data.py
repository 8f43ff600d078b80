import json
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest

from midnight.errors import MidnightError
from midnight.evaluate.hest_data import HestImages, read_barcodes, read_counts, read_folds, read_genes
from tests.evaluate.hest_example import GENES, write_counts, write_patches, write_split, write_task


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_task(tmp_path / "TASK")


def test_a_whole_task(root: Path) -> None:
    samples, folds = read_folds(root)
    assert sorted(samples) == ["S0", "S1", "S2"]
    assert [fold.test for fold in folds] == [("S0",), ("S1",), ("S2",)]
    assert folds[0].train == ("S1", "S2")
    barcodes = read_barcodes(samples["S1"])
    counts = read_counts(samples["S1"], barcodes, read_genes(root))
    table = anndata.read_h5ad(root / "adata" / "S1.h5ad")
    assert counts.shape == (12, 50)
    assert counts[3, 7] == table[barcodes[3], GENES[7]].X[0, 0]
    assert list(table.obs_names) != barcodes


def test_images_come_with_their_barcodes(root: Path) -> None:
    samples, _ = read_folds(root)
    images = HestImages(samples["S2"], lambda image: image)
    with h5py.File(root / "patches" / "S2.h5") as file:
        assert np.array_equal(images[4][0].numpy(), file["img"][4].transpose(2, 0, 1))
    assert len(images) == 12
    assert images.filename(4) == "S2/S2x4"


def test_a_missing_fold(root: Path) -> None:
    (root / "splits" / "test_1.csv").unlink()
    with pytest.raises(MidnightError, match=r"test_1\.csv: missing"):
        read_folds(root)
    for path in (root / "splits").glob("*"):
        path.unlink()
    with pytest.raises(MidnightError, match=r"no splits/train_0\.csv"):
        read_folds(root)


def test_a_sample_in_both_halves_or_twice(root: Path) -> None:
    write_split(root / "splits" / "test_0.csv", ["S0", "S1"])
    with pytest.raises(MidnightError, match="fold 0: sample S1 is in train and in test"):
        read_folds(root)
    write_split(root / "splits" / "test_0.csv", ["S0", "S0"])
    with pytest.raises(MidnightError, match="listed twice"):
        read_folds(root)


def test_files_that_are_missing_or_cut(root: Path) -> None:
    samples, _ = read_folds(root)
    path = root / "patches" / "S0.h5"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(MidnightError, match=r"S0\.h5: can't be read as patches"):
        read_barcodes(samples["S0"])
    path.unlink()
    with pytest.raises(MidnightError, match=r"S0\.h5: missing, but named in"):
        read_folds(root)
    expression = root / "adata" / "S1.h5ad"
    expression.write_bytes(expression.read_bytes()[:2000])
    with pytest.raises(MidnightError, match=r"S1\.h5ad: can't be read as h5ad"):
        read_counts(samples["S1"], ["S1x0"], GENES)


def test_wrong_counts_of_images_and_double_barcodes(root: Path) -> None:
    samples, _ = read_folds(root)
    write_patches(root / "patches" / "S0.h5", ["a", "b", "a"], np.array([1, 2, 3]))
    with pytest.raises(MidnightError, match=r"S0\.h5: barcode a is there twice"):
        read_barcodes(samples["S0"])
    with h5py.File(root / "patches" / "S0.h5", "w") as file:
        file["img"] = np.zeros((3, 8, 8, 3), np.uint8)
        file["barcode"] = np.array(["a", "b"], "S")
    with pytest.raises(MidnightError, match="3 images but 2 barcodes"):
        read_barcodes(samples["S0"])


@pytest.mark.parametrize("bad", [np.nan, -1.0, np.inf])
def test_expression_that_is_no_count(root: Path, bad: float) -> None:
    samples, _ = read_folds(root)
    counts = np.ones((2, 50), np.float32)
    counts[1, 5] = bad
    write_counts(samples["S0"].expression, counts, ["a", "b"], GENES)
    with pytest.raises(MidnightError, match="spot b, gene G5: NaN or negative"):
        read_counts(samples["S0"], ["a", "b"], GENES)


def test_spots_and_genes_that_are_missing_or_double(root: Path) -> None:
    samples, _ = read_folds(root)
    with pytest.raises(MidnightError, match="no spot nowhere"):
        read_counts(samples["S0"], ["nowhere"], GENES)
    with pytest.raises(MidnightError, match="no gene XYZ"):
        read_counts(samples["S0"], ["S0x0"], ["XYZ"])
    write_counts(samples["S0"].expression, np.ones((2, 50), np.float32), ["a", "a"], GENES)
    with pytest.raises(MidnightError, match="barcode a is there twice"):
        read_counts(samples["S0"], ["a"], GENES)
    write_counts(samples["S0"].expression, np.ones((2, 51), np.float32), ["a", "b"], [*GENES, "G7"])
    with pytest.raises(MidnightError, match=r"S0\.h5ad: gene G7 is there twice"):
        read_counts(samples["S0"], ["a"], GENES)


@pytest.mark.parametrize("name", ["../S0.h5", "/S0.h5"])
def test_files_outside_the_task(root: Path, name: str) -> None:
    (root / "splits" / "test_0.csv").write_text(f"sample_id,patches_path,expr_path\nS0,{name},adata/S0.h5ad\n")
    with pytest.raises(MidnightError, match=r"test_0\.csv: .*S0\.h5 is not a file of the task's folder"):
        read_folds(root)


def test_a_split_whose_last_row_is_cut(root: Path) -> None:
    path = root / "splits" / "train_0.csv"
    path.write_text(path.read_text().rsplit(",", 1)[0])
    with pytest.raises(MidnightError, match=r"train_0\.csv: needs a row per sample with columns"):
        read_folds(root)


@pytest.mark.parametrize("genes", [GENES[:49], [*GENES[:49], "G0"], None])
def test_a_list_of_genes_that_is_not_fifty(root: Path, genes: list[str] | None) -> None:
    (root / "var_50genes.json").write_text(json.dumps({"genes": genes}))
    with pytest.raises(MidnightError, match=r"var_50genes\.json"):
        read_genes(root)
