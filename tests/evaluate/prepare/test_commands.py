import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from midnight.cli import main
from midnight.config import Evaluation
from midnight.errors import ConfigError
from midnight.evaluate.prepare import commands
from midnight.evaluate.prepare.check import DataSet
from tests.evaluate.prepare.loopback import Site


@pytest.fixture
def configfile(tmp_path: Path) -> Path:
    """Two PCam tasks, MHIST, a folder."""
    evaluation = {"tasks": ["pcam", "mhist", "pcam-10shot", "crc-fields"], "data_root": str(tmp_path / "data")}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"cohorts": {"mine": {"source": "gdc"}}, "evaluation": evaluation}))
    return path


def status(configfile: Path, *options: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["tasks", "status", "--configfile", str(configfile), *options])
    return int(caught.value.code or 0)


def test_status_is_a_table_and_an_exit_status(
    configfile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = tmp_path / "data" / "colorectal-cancer" / "a"
    fields.mkdir(parents=True)
    (fields / "1.png").write_bytes(bytes(20_000_000))
    (fields.parent / "b").mkdir()
    (fields.parent / "b" / "1.png").write_bytes(b"image")
    (tmp_path / "data" / "mhist").mkdir()
    (tmp_path / "data" / "mhist" / "annotations.csv").write_text("Image Name\nMHIST_aaa.png\n")
    assert status(configfile) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (
        len({line.find(word) for line, word in zip(lines, ["state", "absent", "incomplete", "complete"], strict=False)})
        == 1
    )
    assert lines[1].startswith("pcam, pcam-10shot") and "0 of 6" in lines[1]
    assert "`midnight tasks prepare pcam` downloads it (8.0 GB, CC0 1.0)" in lines[1]
    assert "1 of 3,153" in lines[2] and "images/MHIST_aaa.png, images/*.png (0 of 3,152); get it from https" in lines[2]
    assert "0.02 GB" in lines[3] and lines[-1] == "1 of 3 data sets complete"


def test_status_as_json_and_without_anything_missing(
    configfile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(configfile, "--json") == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["tasks"] for row in rows] == [["pcam", "pcam-10shot"], ["mhist"], ["crc-fields"]]
    assert rows[0]["state"] == "absent" and len(rows[0]["problems"]) == rows[0]["expected"] == 6
    for row in rows[0]["problems"]:
        (tmp_path / "data" / "patch_camelyon").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "patch_camelyon" / row).write_text("x")
    config = yaml.safe_load(configfile.read_text())
    configfile.write_text(yaml.safe_dump(config | {"evaluation": config["evaluation"] | {"tasks": ["pcam"]}}))
    assert status(configfile, "--json") == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert (row["state"], row["found"], row["bytes"], row["how"]) == ("complete", 6, 6, "")


def test_prepare_downloads_each_data_set_once(
    site: Site, dataset: DataSet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = dataclasses.replace(dataset, tasks=("mine", "also-mine"))
    monkeypatch.setattr(commands, "find_datasets", lambda _: [shared])
    monkeypatch.setattr(commands.logs, "setup", lambda: None)
    assert commands.prepare_tasks(Evaluation(), ["also-mine", "mine"]) is False
    assert site.asked() == ["photos.zip", "more.zip", "labels.h5.gz"]
    assert "1 of 1 data sets complete" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"evaluation\.tasks: has no task 'nothing'; it has: mine, also-mine"):
        commands.prepare_tasks(Evaluation(), ["nothing"])


def test_folders_of_ones_own_are_checked_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [tmp_path / "good" / split / label / "1.png" for split in ("train", "test") for label in "ab"]
    images.append(tmp_path / "lacking" / "train" / "a" / "1.png")
    for image in images:
        image.parent.mkdir(parents=True)
        image.write_bytes(b"image")
    (tmp_path / "list.csv").write_text("path,label\ngood/train/a/1.png,a\nabsent.png,b\n")
    folders = {name: str(tmp_path / name) for name in ("good", "lacking", "list.csv", "absent")}
    configfile = tmp_path / "config.yaml"
    configfile.write_text(yaml.safe_dump({"cohorts": {"mine": {"source": "gdc"}}, "evaluation": {"folders": folders}}))
    assert status(configfile, "--json") == 1
    rows = {row["tasks"][0]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "good": "complete",
        "lacking": "incomplete",
        "list.csv": "incomplete",
        "absent": "absent",
    }
    assert rows["lacking"]["problems"] == ["has the split train only; it needs train, and val or test"]
    assert rows["list.csv"]["problems"][0].startswith("1 of 2 images are not there, the first: absent.png (line 3)")
    assert rows["absent"]["how"] == "correct evaluation.folders.absent"
