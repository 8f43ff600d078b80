import itertools
import os
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from midnight.config import HsvFilter, Recipe
from midnight.errors import MidnightError
from midnight.ssl.crew import StallLimits
from midnight.ssl.loader import tile_loader
from midnight.tiles.draw.lost_slides import FILE, read_quarantine
from midnight.tissue.index import training_slides
from tests.ssl.tiny import tiny_recipe, train_tiny
from tests.tissue.small_slides import make_index, tissue_image, write_slide
from tests.waiting import comes_true

TILES = {"size": 32, "mpps": [0.5, 1.0]}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    boxes = [(40, 40, 500, 500), (100, 60, 400, 500)]
    images = [tissue_image(640, 640, [box], seed=number) for number, box in enumerate(boxes)]
    return make_index(tmp_path, [write_slide(tmp_path / f"s{n}.svs", image, 0.5) for n, image in enumerate(images)])


def recipe(workers: int = 0, **change: Any) -> Recipe:
    return tiny_recipe(tiles=TILES, training={"workers": workers, **change.pop("training", {})}, **change)


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


def test_batches_are_the_same_whatever_the_workers_and_the_start(index: Path) -> None:
    found = [
        list(itertools.islice(tile_loader(recipe(workers), {"c": (index, 1.0)})(start), 4 - start))
        for workers, start in ((0, 0), (2, 0), (2, 1))
    ]
    for other, start in ((found[1], 0), (found[2], 1)):
        for a, b in zip(found[0][start:], other, strict=True):
            assert all(torch.equal(a[name], b[name]) for name in a)


def test_workers_end_with_the_batches(index: Path) -> None:
    before = len(children())
    batches = iter(tile_loader(recipe(2), {"c": (index, 1.0)})(0))
    next(batches)
    assert len(children()) == before + 2
    batches.close()  # type: ignore[attr-defined]
    assert len(children()) == before


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_reaches_the_trainer_as_one_line_and_ends_the_workers(index: Path, workers: int) -> None:
    before = len(children())
    strict = recipe(workers)
    strict = replace(strict, tiles=replace(strict.tiles, hsv_filter=HsvFilter(hue=(10, 12))))
    with pytest.raises(MidnightError, match=r"^no tile was accepted on 64 slides") as caught:
        next(iter(tile_loader(strict, {"c": (index, 1.0)})(0)))
    assert "\n" not in str(caught.value)
    assert len(children()) == before


def test_a_killed_worker_is_one_line_too(index: Path) -> None:
    before = children()
    batches = iter(tile_loader(recipe(2), {"c": (index, 1.0)})(0))
    next(batches)
    for child in children():
        if child not in before:
            child.kill()
    with pytest.raises(MidnightError, match=r"a data-loading process died: .*lower training\.workers") as caught:
        for _ in range(100):
            next(batches)
    assert "\n" not in str(caught.value)


def test_a_process_that_hangs_in_a_slide_is_replaced_and_the_batches_are_the_same(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The slides as a whole go away: a named pipe, whose opening waits for a writer as a dead mount's would."""
    limits = StallLimits(tell=0.1, replace=0.5, replacements=1000)
    monkeypatch.setattr("midnight.ssl.loader.StallLimits", lambda replace: limits)
    expected = list(itertools.islice(tile_loader(recipe(0), {"c": (index, 1.0)})(0), 10))
    slides = [Path(slide.path) for slide in training_slides(index)]
    for slide in slides:
        slide.rename(slide.with_suffix(".away"))
        os.mkfifo(slide)
    batches = iter(tile_loader(recipe(2), {"c": (index, 1.0)})(0))
    found = []
    back = threading.Thread(target=lambda: put_back(slides, caplog))
    back.start()
    for wanted in expected:
        found.append(next(batches))
        assert all(torch.equal(found[-1][name], wanted[name]) for name in wanted)
    batches.close()  # type: ignore[attr-defined]
    back.join()
    assert re.search(r"worker 0 \(process \d+, waiting\) is reading \S+s[01]\.svs \(mount .*it was killed", caplog.text)


def put_back(slides: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    """Once a process was replaced, the slides can be read again, by those that come after."""
    assert comes_true(lambda: "it was killed" in caplog.text)
    for slide in slides:
        slide.with_suffix(".away").rename(slide)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_when_a_slide_vanishes_and_records_it(index: Path, tmp_path: Path, workers: int) -> None:
    gone = training_slides(index)[0]
    Path(gone.path).unlink()
    output = tmp_path / "run"
    train_tiny(output, recipe(workers), batches=None, cohorts={"c": (index, 1.0)})
    assert (output / "teacher.safetensors").exists()
    assert [(lost.slide_id, lost.cohort, lost.reason) for lost in read_quarantine(output / FILE)] == [
        (gone.slide_id, "c", "no such file")
    ]


def test_crops_may_be_made_on_the_training_device(index: Path, tmp_path: Path) -> None:
    batch = next(iter(tile_loader(recipe(training={"augment": "device"}), {"c": (index, 1.0)})(0)))
    assert tuple(batch["tiles"].shape) == (4, 32, 32, 3)
    train_tiny(tmp_path / "run", recipe(training={"augment": "device"}), batches=None, cohorts={"c": (index, 1.0)})
    assert (tmp_path / "run" / "teacher.safetensors").exists()
