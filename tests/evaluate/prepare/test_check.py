import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from midnight.evaluate.prepare import check as check_module
from midnight.evaluate.prepare.check import DataSet, check
from midnight.evaluate.prepare.resources import Resource
from midnight.evaluate.prepare.rules import Download

Make = Callable[..., DataSet]


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")


def test_absent_incomplete_complete(make_dataset: Make) -> None:
    data = make_dataset(files={"images/*.png": 3, "labels_{1..2}.csv": 1}, hint="unpack it")
    page = "get it from https://example.org (licence: CC0) and put it there: unpack it"
    status = check(data)
    assert (status.state, status.found, status.expected, status.size, status.how) == ("absent", 0, 5, 0, page)
    fill(data.root, "images/1.png", "images/2.png", "labels_1.csv", ".hidden/3.png", "images/.3.png")
    status = check(data)
    assert (status.state, status.found, status.expected, status.size) == ("incomplete", 3, 5, 3)
    assert status.line == f"task mine: {data.root}: incomplete: images/*.png (2 of 3), labels_2.csv; {page}"
    fill(data.root, "images/3.png", "labels_2.csv", "readme.txt")
    status = check(data)
    assert (status.state, status.found, status.expected, status.how, status.problems) == ("complete", 5, 5, "", ())


def test_empty_files_count_as_missing_and_surplus_is_told(make_dataset: Make) -> None:
    data = make_dataset(files={"*.png": 1})
    fill(data.root, "1.png", "2.png")
    assert check(data).problems == ("*.png (2 of 1)",)
    (data.root / "1.png").write_text("")
    assert check(data).complete


def test_only_the_first_names_are_shown(make_dataset: Make) -> None:
    data = make_dataset(files={"{1..1000}.png": 1})
    fill(data.root, "7.png")
    assert check(data).lacking == "1.png, 2.png, 3.png, 4.png and 995 more"
    assert len(check(data).problems) == 999


def test_files_that_a_table_names_are_looked_for(make_dataset: Make) -> None:
    data = make_dataset(files={"list.csv": 1, "*.png": 2}, lists={"list.csv": ["{Image Name}", "other/{id}.h5"]})
    fill(data.root, "a.png", "b.png", "other/1.h5")
    (data.root / "list.csv").write_text("Image Name,id\na.png,1\nc.png,2\n")
    status = check(data)
    assert status.problems == ("c.png", "other/2.h5")
    assert (status.found, status.expected) == (4, 5)
    (data.root / "list.csv").write_text("name,id\na.png,1\n")
    status = check(data)
    assert status.state == "incomplete"
    assert status.problems == (f"{data.root / 'list.csv'}: has no column 'Image Name'; get the file again",)


def test_a_folder_without_rules_needs_files(make_dataset: Make) -> None:
    data = make_dataset()
    data.root.mkdir(parents=True)
    assert check(data).problems == ("no files",)
    fill(data.root, "a/1.png")
    status = check(data)
    assert (status.complete, status.found, status.expected) == (True, 1, 0)


def test_links_to_folders_are_followed_but_not_in_circles(make_dataset: Make, tmp_path: Path) -> None:
    data = make_dataset(files={"images/*.png": 2})
    fill(tmp_path / "disk", "1.png", "2.png")
    data.root.mkdir(parents=True)
    (data.root / "images").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "circle").symlink_to(data.root)
    assert check(data).complete


def test_hest_needs_its_folds(make_dataset: Make) -> None:
    data = make_dataset(files={"splits/{train,test}_0.csv": 1})
    data = dataclasses.replace(data, task=dataclasses.replace(data.task, kind="hest"))
    fill(data.root, "splits/train_0.csv", "splits/test_0.csv", "splits/train_1.csv")
    row = "sample_id,patches_path,expr_path\n"
    for half in ("train_0", "test_0", "train_1"):
        (data.root / "splits" / f"{half}.csv").write_text(row + f"{half},splits/test_0.csv,splits/test_0.csv\n")
    assert "splits/test_1.csv: missing" in check(data).lacking


def test_md5s_are_compared_when_asked_for(make_dataset: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_dataset(downloads={"x.h5": Download(1.5)})
    assert check(data).how == "`midnight tasks prepare mine` downloads it (1.5 GB, CC0)"
    fill(data.root, "x.h5")
    monkeypatch.setattr(check_module, "find_resources", lambda *_: [Resource("x.h5", "http://x", "0" * 32)])
    assert check(data).complete
    problem = "x.h5 (md5 is 9dd4e461268c8034f5c8564e155c67a6, must be 00000000000000000000000000000000)"
    assert check(data, verify=True).problems == (problem,)
