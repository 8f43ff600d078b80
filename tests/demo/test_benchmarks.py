"""The stand-ins through eva's own dataset classes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from midnight.demo import crc
from midnight.demo.benchmarks import write_benchmarks
from midnight.demo.classes import TissueClass
from midnight.demo.consep import TYPES
from midnight.errors import MidnightError

from .conftest import SCALE, SEED


@pytest.fixture(scope="module")
def datasets():
    from eva.vision.data import datasets

    return datasets


def test_bach_is_what_eva_expects(benchmark_sets: Path, datasets) -> None:
    counts = {}
    for split in ("train", "val"):
        data = datasets.BACH(str(benchmark_sets / "bach"), split=split)
        data.prepare_data()
        data.configure()
        data.validate()
        assert data.load_data(0).shape == (3, 96, 96)
        counts[split] = np.bincount([int(data.load_target(i)) for i in range(len(data))])
    assert (counts["train"] + counts["val"] == 100).all()


def test_bach_is_not_given_away_by_mean_colour(benchmark_sets: Path, datasets) -> None:
    sets = {}
    for split in ("train", "val"):
        data = datasets.BACH(str(benchmark_sets / "bach"), split=split)
        data.configure()
        means = np.stack([np.asarray(data.load_data(i)).mean((1, 2)) for i in range(len(data))])
        sets[split] = means / 10, np.array([int(data.load_target(i)) for i in range(len(data))])
    guess = LogisticRegression(max_iter=2000).fit(*sets["train"]).predict(sets["val"][0])
    assert balanced_accuracy_score(sets["val"][1], guess) < 0.5


def test_patch_camelyon_reads_and_is_balanced(benchmark_sets: Path, datasets) -> None:
    for split in ("train", "val", "test"):
        data = datasets.PatchCamelyon(str(benchmark_sets / "patch_camelyon"), split=split)
        data.prepare_data()
        assert data.load_data(0).shape == (3, 96, 96)
        labels = [int(data.load_target(i)) for i in range(len(data))]
        assert len(labels) >= 40 and sum(labels) * 2 == len(labels)


def test_consep_is_what_eva_expects(benchmark_sets: Path, datasets) -> None:
    seen = set()
    for split in ("train", "val"):
        data = datasets.CoNSeP(str(benchmark_sets / "consep"), split=split)
        data.prepare_data()
        data.configure()
        data.validate()
        assert len(data) >= {"train": 27, "val": 14}[split] * 0.9
        for index in range(0, len(data), 4):
            image, mask = np.asarray(data.load_data(index)), np.asarray(data.load_target(index))
            assert image.shape == (3, 250, 250) and mask.shape[-2:] == (250, 250)
            grey, cells = image.mean(0), mask.reshape(250, 250) > 0
            if 0.02 < cells.mean() < 0.98:
                assert grey[cells].mean() < grey[~cells].mean() - 10
            seen |= set(np.unique(mask).tolist())
    assert seen == {0, 1, 2, 3, 4}
    assert set(TYPES.values()) == {1, 2, 3, 4, 5}


def test_same_seed_same_bytes(benchmark_sets: Path, tmp_path: Path) -> None:
    write_benchmarks(tmp_path, SEED, SCALE)
    names = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(names) == 400 + 4 * max(8, int(100 * SCALE)) + 6 + 2 * 41 + 2 * (2 * 4 + 6 + 1) + 1
    for name in names:
        assert (benchmark_sets / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_crc_has_a_folder_of_fields_for_each_tissue(benchmark_sets: Path) -> None:
    folders = {folder.name: sorted(folder.glob("*.tif")) for folder in (benchmark_sets / "crc").iterdir()}
    assert {name: len(files) for name, files in folders.items()} == dict.fromkeys(crc.FOLDERS, max(8, int(100 * SCALE)))
    assert cv2.imread(str(folders["TUM"][0])).shape == (crc.SIDE, crc.SIDE, 3)


def test_crc_fields_show_mostly_their_tissue(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []
    draw_regions = crc.draw_regions
    monkeypatch.setattr(crc, "draw_regions", lambda *given: drawn.append(draw_regions(*given)) or drawn[-1])
    fields = crc.draw_fields(np.random.default_rng(0), TissueClass.GLAND)
    cells = drawn[0].reshape(crc.GRID, -1, crc.GRID, int(crc.SIDE * crc.MPP)).transpose(0, 2, 1, 3)
    shares = (cells == TissueClass.GLAND).mean((2, 3))
    assert 0 < len(fields) <= (shares >= crc.MIN_SHARE).sum()


def test_images_differ_in_stain(benchmark_sets: Path) -> None:
    paths = sorted((benchmark_sets / "bach").rglob("n0*.tif"))[:20]
    means = np.stack([cv2.imread(str(path)).mean((0, 1)) for path in paths])
    assert means.std(0).min() > 5


def test_a_real_data_set_is_not_replaced_by_the_demos(tmp_path: Path) -> None:
    image = tmp_path / "bach" / "ICIAR2018_BACH_Challenge" / "Photos" / "Benign" / "b001.tif"
    image.parent.mkdir(parents=True)
    image.write_text("real")
    with pytest.raises(MidnightError, match=r"bach: is there, and the demo did not make it; set evaluation\.data_root"):
        write_benchmarks(tmp_path, SEED, SCALE)
    assert image.read_text() == "real"
    assert [path.name for path in tmp_path.iterdir()] == ["bach"]
