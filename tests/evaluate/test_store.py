import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from midnight.errors import MidnightError
from midnight.evaluate import store
from midnight.evaluate.features import FeatureDataset, SlideDataset, feature_dataset, take
from midnight.evaluate.store import (
    DONE,
    FEATURES,
    INDEX,
    PARTIAL_FEATURES,
    PARTIAL_SAMPLES,
    SAMPLES,
    EmbeddingWriter,
    Row,
    is_current,
    read_embeddings,
    restore_index,
)


def rows_of(n: int) -> list[Row]:
    groups = ["s0", "s1", "s0", "s1", "s2", "s3"]
    return [("val" if row >= n - 2 else "train", f"i{row}", row % 2 * 1.0, groups[row % 6]) for row in range(n)]


def write(folder: Path, n: int = 6, dtype: str = "float32") -> np.ndarray:
    features = np.arange(n * 8, dtype=dtype).reshape(n, 8)
    with EmbeddingWriter(folder, "k", (n, 8), dtype) as writer:
        writer.append(features[:4], rows_of(n)[:4])
        writer.append(features[4:], rows_of(n)[4:])
        writer.finish({"key": "k", "count": n})
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


def test_nothing_but_the_whole_files_is_left(tmp_path: Path) -> None:
    features = write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {FEATURES, SAMPLES, INDEX, DONE}
    plain = tmp_path / "plain.npy"
    np.save(plain, features)
    assert (tmp_path / FEATURES).read_bytes() == plain.read_bytes()
    (tmp_path / SAMPLES).unlink()
    assert not is_current(tmp_path, "k")


def test_half_precision_gives_float32_to_heads(tmp_path: Path) -> None:
    features = write(tmp_path, dtype="float16")
    stored = read_embeddings(tmp_path)
    assert stored.features.dtype == np.float16
    for tiles in (None, 3):
        data = feature_dataset(stored, np.arange(6), "cls", binary=False, tiles=tiles)
        assert data[0][0].dtype == data.__getitems__([0, 1])[0].dtype == torch.float32
    assert data[0][0][:2].tolist() == features[[0, 2], :4].tolist()


def test_nan_is_not_stored(tmp_path: Path) -> None:
    features = np.zeros((4, 8), np.float32)
    features[2, 7] = np.nan
    with (
        pytest.raises(MidnightError, match="NaN or infinite embeddings for i2"),
        EmbeddingWriter(tmp_path, "k", (6, 8), "float32") as writer,
    ):
        writer.append(features, rows_of(6)[:4])
    assert not is_current(tmp_path, "k")
    with EmbeddingWriter(tmp_path, "k", (6, 8), "float32") as writer:
        assert writer.done == 0


def stop_after(folder: Path, key: str = "k", n: int = 60) -> np.ndarray:
    """A writer that ends after 40 of the rows, having been killed while it wrote the next ones."""
    features = np.random.default_rng(0).normal(size=(n, 8)).astype(np.float32)
    with EmbeddingWriter(folder, key, (n, 8), "float32") as writer:
        for start in (0, 20):
            writer.append(features[start : start + 20], rows_of(n)[start : start + 20])
            writer._checkpoint()
    with (folder / PARTIAL_FEATURES).open("ab") as file:
        file.write(b"half a batch")
    with (folder / PARTIAL_SAMPLES).open("ab") as file:
        file.write(b'[["train", "i4')
    return features


def test_a_writer_goes_on_after_the_last_checkpoint(tmp_path: Path) -> None:
    features = stop_after(tmp_path)
    assert not is_current(tmp_path, "k")
    with EmbeddingWriter(tmp_path, "k", (60, 8), "float32") as writer:
        assert writer.done == 40
        writer.append(features[40:], rows_of(60)[40:])
        writer.finish({"key": "k", "count": 60})
    stored = read_embeddings(tmp_path)
    assert np.array_equal(stored.features, features)
    assert list(stored.samples.itertuples(index=False, name=None)) == rows_of(60)


@pytest.mark.parametrize("damage", ["key", "features", "first line", "garbage"])
def test_what_can_not_be_trusted_is_computed_again(tmp_path: Path, damage: str) -> None:
    stop_after(tmp_path)
    samples = tmp_path / PARTIAL_SAMPLES
    if damage == "features":
        (tmp_path / PARTIAL_FEATURES).write_bytes(b"cut")
    if damage == "first line":
        samples.write_bytes(samples.read_bytes()[:5])
    if damage == "garbage":
        first, second, *_ = samples.read_bytes().splitlines(keepends=True)
        samples.write_bytes(first + b"\0" * len(second[:-2]) + b"]\n")
    key = "other" if damage == "key" else "k"
    with EmbeddingWriter(tmp_path, key, (4, 8) if damage == "key" else (60, 8), "float32") as writer:
        assert writer.done == 0
    with pytest.raises(MidnightError, match="no complete embeddings"):
        read_embeddings(tmp_path)
    assert write(tmp_path).shape == (6, 8)
    assert is_current(tmp_path, "k")


def test_old_embeddings_stay_until_new_ones_are_complete(tmp_path: Path) -> None:
    write(tmp_path)
    stop_after(tmp_path, key="new")
    assert is_current(tmp_path, "k")
    assert len(read_embeddings(tmp_path).features) == 6


def test_the_old_index_never_stands_beside_new_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(MidnightError, match=r"the disk is full: No space left on device; make room, then run again"),
        EmbeddingWriter(tmp_path, "new", (6, 8), "float32") as writer,
    ):
        writer.append(np.zeros((6, 8), np.float32), rows_of(6))
        monkeypatch.setattr(store, "write_json", fail)
        writer.finish({"key": "new", "count": 6})
    assert not is_current(tmp_path, "k")
    assert not is_current(tmp_path, "new")


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with EmbeddingWriter(tmp_path, "k", (6, 8), "float32"), pytest.raises(MidnightError, match="another job"):
        EmbeddingWriter(tmp_path, "k", (6, 8), "float32")
    assert write(tmp_path).shape == (6, 8)


def test_features_are_not_held_in_memory(tmp_path: Path) -> None:
    batch = np.ones((64, 4096), np.float32)
    tracemalloc.start()
    with EmbeddingWriter(tmp_path, "k", (64 * 40, 4096), "float32") as writer:
        for start in range(0, 64 * 40, 64):
            writer.append(batch, [("train", f"{start + row}", 0.0, "g") for row in range(64)])
        writer.finish({"key": "k", "count": 64 * 40})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / FEATURES).stat().st_size > 40 * 2**20
    assert peak < 4 * 2**20


@pytest.mark.parametrize("hard_links", [True, False])
def test_shared_embeddings_do_not_depend_on_each_other(
    tmp_path: Path, hard_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not hard_links:
        monkeypatch.setattr(store.os, "link", refuse)
    first, second = tmp_path / "first", tmp_path / "second"
    features = write(first)
    stop_after(second, key="old")
    store.link_embeddings(first, second)
    assert {path.name for path in second.iterdir()} == {FEATURES, SAMPLES, INDEX, DONE}
    assert (first / FEATURES).samefile(second / FEATURES) == hard_links
    assert is_current(second, "k")
    with EmbeddingWriter(first, "new", (6, 8), "float32") as writer:
        writer.append(np.zeros((6, 8), np.float32), rows_of(6))
        writer.finish({"key": "new", "count": 6})
    assert np.array_equal(read_embeddings(second).features, features)
    shutil.rmtree(first)
    assert is_current(second, "k")
    assert len(read_embeddings(second).samples) == 6


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
