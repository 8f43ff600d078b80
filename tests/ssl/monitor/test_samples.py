import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from midnight.config import Crops
from midnight.ssl.monitor.samples import FILE, GAP, CropSamples, crop_grid, write_crops
from tests.ssl.tiny import batch_at, tiny_recipe

CROPS = Crops(global_size=28, local_size=14, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def test_the_grid_has_a_row_per_tile_and_a_column_per_crop() -> None:
    raw = batch_at(0)
    grid = crop_grid(raw, CROPS, tiles=3)
    assert grid.shape == (3 * (28 + GAP) + GAP, 2 * 28 + 2 * 14 + 5 * GAP, 3)
    second = grid[GAP + 28 + GAP :][:28, GAP + 28 + GAP :][:, :28]
    assert (second == raw["global_crops"][1, 1].permute(1, 2, 0).numpy()).all()
    last_local = grid[GAP:][:14, -GAP - 14 : -GAP]
    assert (last_local == raw["local_crops"][0, 1].permute(1, 2, 0).numpy()).all()


def test_normalised_crops_give_the_same_picture() -> None:
    raw = batch_at(0)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (CROPS.mean, CROPS.std))
    normalised = {name: (crops / 255 - mean) / std for name, crops in raw.items()}
    assert (crop_grid(raw, CROPS) == crop_grid(normalised, CROPS)).all()


def test_without_local_crops_there_are_only_global_ones() -> None:
    assert crop_grid(batch_at(0, local=0), CROPS).shape[1] == 2 * 28 + 3 * GAP


def test_the_first_batch_is_shown_then_one_at_every_probe(tmp_path: Path) -> None:
    sent: list[int] = []

    class Sink:
        def log_file(self, path: Path) -> None:
            assert path == tmp_path / FILE
            sent.append(step)

    samples = CropSamples(tiny_recipe(training={"probe_every": 4}), tmp_path, Sink())  # type: ignore[arg-type]
    for step in range(3, 14):
        samples.look(batch_at(step), step)
    assert sent == [3, 4, 8, 12]
    with Image.open(tmp_path / FILE) as picture:
        assert (np.asarray(picture) == crop_grid(batch_at(12), CROPS)).all()
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_picture_that_cannot_be_written_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / FILE).mkdir(parents=True)
    for folder in ("file", "folder"):
        with caplog.at_level(logging.WARNING):
            assert not write_crops(batch_at(0), CROPS, tmp_path / folder / FILE)
        assert f"no picture of the crops: {'[Errno' if folder == 'file' else tmp_path}" in caplog.text
