import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from midnight.errors import MidnightError
from midnight.evaluate.features import FeatureDataset, SlideDataset, feature_dataset, take
from midnight.evaluate.store import is_current, read_embeddings, restore_index, write_embeddings


def write(folder: Path, n: int = 6) -> np.ndarray:
    features = np.arange(n * 8, dtype=np.float32).reshape(n, 8)
    split = ["train"] * (n - 2) + ["val"] * 2
    samples = pd.DataFrame({"split": split, "name": [f"i{row}" for row in range(n)], "target": np.arange(n) % 2 * 1.0})
    samples["group"] = ["s0", "s1", "s0", "s1", "s2", "s3"][:n]
    write_embeddings(folder, features, samples, {"key": "k", "count": n})
    return features


def test_there_and_back(tmp_path: Path) -> None:
    features = write(tmp_path)
    stored = read_embeddings(tmp_path)
    assert np.array_equal(stored.features, features)
    assert stored.features.dtype == np.float32
    assert stored.dim == 4
    assert np.array_equal(stored.pooled("cls"), features[:, :4])
    assert np.array_equal(stored.pooled("cls_mean"), features)
    assert stored.rows("val").tolist() == [4, 5]
    assert list(stored.samples["name"]) == [f"i{row}" for row in range(6)]


def test_current_until_the_key_changes_or_a_file_is_gone(tmp_path: Path) -> None:
    assert not is_current(tmp_path, "k")
    write(tmp_path)
    assert is_current(tmp_path, "k")
    assert not is_current(tmp_path, "other")
    (tmp_path / "index.json").unlink()
    assert is_current(tmp_path, "k")
    restore_index(tmp_path)
    assert json.loads((tmp_path / "index.json").read_text())["count"] == 6
    (tmp_path / "features.npy").write_bytes(b"cut")
    assert not is_current(tmp_path, "k")


def test_nan_is_not_stored(tmp_path: Path) -> None:
    samples = pd.DataFrame({"split": ["a"], "name": ["b"], "target": [0.0], "group": ["b"]})
    with pytest.raises(MidnightError, match="NaN"):
        write_embeddings(tmp_path, np.full((1, 2), np.nan, np.float32), samples, {})
    assert not list(tmp_path.iterdir())


def test_incomplete_embeddings_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    np.save(tmp_path / "features.npy", np.zeros((5, 8), np.float32))
    with pytest.raises(MidnightError, match="5 features for 6 samples"):
        read_embeddings(tmp_path)
    (tmp_path / "index.json").unlink()
    with pytest.raises(MidnightError, match="no complete embeddings"):
        read_embeddings(tmp_path)


def test_items_are_those_of_evas_embeddings(tmp_path: Path) -> None:
    features = write(tmp_path)
    data = feature_dataset(read_embeddings(tmp_path), np.arange(4), "cls", binary=True)
    x, y = data[2]
    assert x.tolist() == features[2, :4].tolist()
    assert y.dtype.is_floating_point
    assert not feature_dataset(read_embeddings(tmp_path), np.arange(4), "cls", binary=False)[0][
        1
    ].dtype.is_floating_point
    batch, targets = data.__getitems__([3, 0])
    assert batch.tolist() == features[[3, 0], :4].tolist()
    assert targets.tolist() == [1, 0]
    assert data.load_target(1) == 1
    assert isinstance(data, FeatureDataset)
    assert len(data) == 4


def test_slides_are_padded_bags_of_their_own_tiles(tmp_path: Path) -> None:
    features = write(tmp_path)
    data = feature_dataset(read_embeddings(tmp_path), np.array([0, 1, 2, 3]), "cls_mean", binary=False, tiles=3)
    assert isinstance(data, SlideDataset)
    assert len(data) == 2
    bag, target = data[1]
    assert bag.shape == (3, 8)
    assert bag[:2].tolist() == features[[1, 3]].tolist()
    assert np.isneginf(bag[2].numpy()).all()
    assert target == 1
    bags, targets = data.__getitems__([1, 0])
    assert bags.shape == (2, 3, 8)
    assert targets.tolist() == [1, 0]
    short = SlideDataset(features, np.zeros(6), ["a"] * 6, binary=True, tiles=2)
    assert short[0][0].tolist() == features[:2].tolist()


def test_consecutive_rows_are_not_copied() -> None:
    array = np.arange(20.0).reshape(10, 2)
    assert np.shares_memory(take(array, np.arange(2, 6)), array)
    assert not np.shares_memory(take(array, np.array([1, 4])), array)
    assert take(array, np.array([1, 4])).tolist() == array[[1, 4]].tolist()
    assert take(array, np.array([], int)).shape == (0, 2)
