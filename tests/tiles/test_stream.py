import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import DataLoader

from midnight.config import Crops, Tiles
from midnight.errors import MidnightError
from midnight.tiles.draw.lost_slides import read_quarantine
from midnight.tiles.stream import TileStream
from midnight.tissue.index import training_slides
from tests.tiles.batches import batches, differences
from tests.tissue.small_slides import make_index, write_slide

BATCH = 3


@pytest.fixture
def settings(index: Path, tiles: Tiles, crops: Crops) -> dict[str, Any]:
    return {"cohorts": {"demo": (index, 1.0)}, "tiles": tiles, "crops": crops, "seed": 5, "batch_size": BATCH}


def test_a_batch_is_what_it_says(settings: dict[str, Any]) -> None:
    stream = TileStream(**settings)
    batch = batches(stream, 1)[0]
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in batch.items()}
    assert shapes == {
        "global_crops": ((BATCH, 2, 3, 28, 28), torch.uint8),
        "local_crops": ((BATCH, 3, 3, 14, 14), torch.uint8),
        "slide": ((BATCH,), torch.int64),
        "cohort": ((BATCH,), torch.int64),
        "mpp": ((BATCH,), torch.float64),
        "x": ((BATCH,), torch.int64),
        "y": ((BATCH,), torch.int64),
        "index": ((BATCH,), torch.int64),
    }
    assert batch["index"].tolist() == [0, 1, 2]
    assert batch["global_crops"].permute(0, 1, 3, 4, 2).is_contiguous()
    assert set(stream.slides) == {"large", "small"}
    assert stream.cohorts == ["demo"]


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_are_views_of_the_tiles_that_device_mode_gives(settings: dict[str, Any], workers: int) -> None:
    plain = {"jitter_p": 0.0, "blur_p": (0.0, 0.0, 0.0), "solarize_p": 0.0, "global_scale": (0.9, 1.0)}
    settings |= {"crops": replace(settings["crops"], **plain), "tiles": replace(settings["tiles"], hed_sigma=0.0)}
    cpu, device = (batches(TileStream(**settings, augment=mode), 2, workers) for mode in ("cpu", "device"))
    for crops, whole in zip(cpu, device, strict=True):
        assert "global_crops" not in whole
        assert (tuple(whole["tiles"].shape), whole["tiles"].dtype) == ((BATCH, 64, 64, 3), torch.uint8)
        assert all(torch.equal(crops[name], whole[name]) for name in ("slide", "cohort", "mpp", "x", "y", "index"))
        means = crops["global_crops"].float().mean((1, 3, 4))
        assert (means - whole["tiles"].float().mean((1, 2))).abs().max() < 6


def test_no_local_crops_are_no_problem(settings: dict[str, Any]) -> None:
    batch = batches(TileStream(**settings | {"crops": replace(settings["crops"], n_local=0)}), 1)[0]
    assert tuple(batch["local_crops"].shape) == (BATCH, 0, 3, 14, 14)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_does_not_matter(settings: dict[str, Any], workers: int) -> None:
    assert differences(batches(TileStream(**settings), 5), batches(TileStream(**settings), 5, workers)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_goes_on_where_it_stopped(settings: dict[str, Any], workers: int) -> None:
    resumed = batches(TileStream(**settings, start_step=3), 2, workers)
    assert differences(batches(TileStream(**settings), 5)[3:], resumed) == []


def test_ranks_share_the_samples_of_one_process(settings: dict[str, Any]) -> None:
    alone = batches(TileStream(**settings), 4)
    ranks = [batches(TileStream(**settings, rank=rank, world=2), 2) for rank in range(2)]
    assert differences(alone, [ranks[0][0], ranks[1][0], ranks[0][1], ranks[1][1]]) == []


def test_a_stream_sent_to_another_process_is_the_same(settings: dict[str, Any]) -> None:
    stream = TileStream(**settings)
    expected = batches(stream, 2)
    assert differences(batches(pickle.loads(pickle.dumps(stream)), 2), expected) == []  # noqa: S301


def test_another_seed_gives_other_tiles(settings: dict[str, Any]) -> None:
    assert differences(batches(TileStream(**settings), 1), batches(TileStream(**settings | {"seed": 6}), 1))


def test_augmentation_leaves_the_places_alone(settings: dict[str, Any]) -> None:
    changed = settings | {"crops": Crops(global_size=14, local_size=7, n_local=1)}
    changed["tiles"] = replace(settings["tiles"], hed_sigma=0.3)
    first, second = batches(TileStream(**settings), 3), batches(TileStream(**changed), 3)
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in ("slide", "x", "y", "mpp"))


def copied_index(index: Path, folder: Path) -> Path:
    paths = [shutil.copy(record.path, folder) for record in training_slides(index)]
    return make_index(folder, [Path(path) for path in paths])


def test_slides_that_break_while_workers_draw_are_recorded_and_the_batches_go_on(
    index: Path, tmp_path: Path, images: dict[str, np.ndarray], settings: dict[str, Any]
) -> None:
    names = ("gone", "cut", "good")
    paths = [write_slide(tmp_path / f"{name}.svs", images["large"], 0.5) for name in names]
    record = tmp_path / "quarantined.tsv"
    settings |= {"cohorts": {"demo": (make_index(tmp_path, paths), 1.0)}, "quarantine": record}
    settings["tiles"] = replace(settings["tiles"], max_open_slides=1)
    stream = TileStream(**settings)
    loader = iter(DataLoader(stream, batch_size=None, num_workers=2, timeout=60))
    assert {stream.slides[slide] for _ in range(4) for slide in next(loader)["slide"].tolist()} == set(names)
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:3000])
    later = [next(loader) for _ in range(30)][10:]
    assert {stream.slides[slide] for batch in later for slide in batch["slide"].tolist()} == {"good"}
    assert sorted((lost.slide_id, bool(lost.reason)) for lost in read_quarantine(record)) == [
        ("cut", True),
        ("gone", True),
    ]


def test_when_all_slides_vanish_the_stream_ends_with_one_line(
    index: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    copied = copied_index(index, tmp_path)
    settings["tiles"] = replace(settings["tiles"], patience=0.0)
    stream = TileStream(**settings | {"cohorts": {"demo": (copied, 1.0)}})
    for record in training_slides(copied):
        Path(record.path).unlink()
    with pytest.raises(MidnightError, match="as for 2 of 2 files that were tried: bring the folder back and run again"):
        next(iter(stream))


def test_an_index_without_slides_is_refused_at_once(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(MidnightError, match="no slide to train on"):
        TileStream(**settings | {"cohorts": {"demo": (make_index(tmp_path, []), 1.0)}})


def test_open_files_stay_few(settings: dict[str, Any]) -> None:
    stream = iter(TileStream(**settings | {"tiles": replace(settings["tiles"], max_open_slides=1)}))
    for _ in range(5):
        next(stream)
    before = psutil.Process().num_fds()
    for _ in range(20):
        next(stream)
    assert psutil.Process().num_fds() <= before + 1
    assert len([file for file in psutil.Process().open_files() if file.path.endswith(".svs")]) <= 1
