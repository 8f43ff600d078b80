"""A data set of two small archives and a gzip file, and a real service on loopback that has them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from midnight.evaluate.entries import Dataset, Task
from midnight.evaluate.prepare import task as task_module
from midnight.evaluate.prepare.check import DataSet
from midnight.evaluate.prepare.rules import Download, Rules
from tests.evaluate.prepare.loopback import Site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site(tmp_path / "site")
    monkeypatch.setattr(task_module, "find_resources", lambda *_: site.resources)
    yield site
    site.service.stop()


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., DataSet]:
    """A data set with these rules in an own folder."""

    def make(**rules: Any) -> DataSet:
        dataset = Dataset(root="mine", class_path="eva.vision.data.datasets.BACH")
        task = Task(
            kind="tile", label="Mine", column="mine", metric="M", scored="val", dataset=dataset, name="mine",
            source="https://example.org", licence="CC0",
        )  # fmt: skip
        return DataSet(task, ("mine",), tmp_path / "data" / "mine", Rules(**rules))

    return make


@pytest.fixture
def dataset(make_dataset: Callable[..., DataSet]) -> DataSet:
    """Three downloads, as the site has them."""
    downloads = {
        "photos.zip": Download(0.1, {"photos/{a,b}/*.png": 3}),
        "more.zip": Download(0.2, {"more/*.png": 1}),
        "labels.h5": Download(0),
    }
    return make_dataset(downloads=downloads)
