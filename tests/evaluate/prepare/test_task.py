import json
import random
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from midnight.config import Evaluation
from midnight.errors import MidnightError
from midnight.evaluate.prepare import task as task_module
from midnight.evaluate.prepare.check import DataSet, check
from midnight.evaluate.prepare.rules import Download
from midnight.evaluate.prepare.task import MARKS, STAGE, prepare, prepare_task
from tests.evaluate.prepare.loopback import LABELS, RETRIES, Site, zipped
from tests.read_only import read_only
from tests.waiting import comes_true

Make = Callable[..., DataSet]


def content(dataset: DataSet) -> list[str]:
    """All files, hidden ones too, but for the mark by which the hidden folder is known."""
    files = [path for path in dataset.root.rglob("*") if path.is_file() and path.name != MARKS[0]]
    return sorted(path.relative_to(dataset.root).as_posix() for path in files)


WHOLE = ["labels.h5", "more/1.png", *(f"photos/{kind}/{number}.png" for kind in "ab" for number in (1, 2, 3))]


def test_downloads_are_unpacked_checked_and_moved_into_place(
    site: Site, dataset: DataSet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert prepare(dataset, RETRIES).complete
    assert content(dataset) == WHOLE
    assert (dataset.root / "labels.h5").read_bytes() == LABELS
    assert not (dataset.root / STAGE).exists()
    assert f"photos.zip: 0.1 GB, licence CC0: {site.service.url}/data/photos.zip" in caplog.text
    assert site.asked() == ["photos.zip", "more.zip", "labels.h5.gz"]
    assert prepare(dataset, RETRIES).complete
    assert site.asked() == []


def test_only_what_is_missing_is_fetched(site: Site, dataset: DataSet) -> None:
    prepare(dataset, RETRIES)
    shutil.rmtree(dataset.root / "more")
    mark = (dataset.root / "labels.h5").stat().st_mtime_ns
    site.asked()
    assert prepare(dataset, RETRIES).complete
    assert site.asked() == ["more.zip"]
    assert (dataset.root / "labels.h5").stat().st_mtime_ns == mark


@pytest.mark.parametrize(("file_name", "name"), [("photos.zip", "photos.zip"), ("labels.h5.gz", "labels.h5")])
def test_wrong_md5_is_one_line_and_fetched_anew_next_time(
    site: Site, dataset: DataSet, file_name: str, name: str
) -> None:
    right = next(resource.md5 for resource in site.resources if resource.name == name)
    served = (site.folder / file_name).read_bytes()
    site.put(file_name, served, name, "0" * 32)
    with pytest.raises(MidnightError, match=f"md5 is {right}, published is 0{{32}}; removed: run again") as caught:
        prepare(dataset, RETRIES)
    assert "\n" not in str(caught.value)
    assert not (dataset.root / "photos").exists() or name == "labels.h5"
    assert check(dataset).state != "complete" and f"{STAGE}/{file_name}" not in content(dataset)
    site.put(file_name, served, name, right)
    site.asked()
    assert prepare(dataset, RETRIES).complete
    assert file_name in site.asked() and content(dataset) == WHOLE


def test_cut_download_never_looks_complete_and_is_resumed(site: Site, dataset: DataSet) -> None:
    site.service.hooks.stall_at = 20_000
    impatient = task_module.Retries(attempts=1, pause=0.01, timeout=1.0)
    with pytest.raises(MidnightError, match=r"photos\.zip: no byte for 1 s; run again: the 20,000 bytes"):
        prepare(dataset, impatient)
    assert check(dataset).state == "absent"
    assert content(dataset) == [f"{STAGE}/photos.zip.partial"]
    site.service.hooks.stall_at = None
    site.service.requests.clear()
    assert prepare(dataset, RETRIES).complete
    assert site.service.requests[0].headers["Range"] == "bytes=20000-"
    assert content(dataset) == WHOLE


def test_interrupted_between_files_keeps_the_whole_ones(site: Site, dataset: DataSet) -> None:
    (site.folder / "more.zip").rename(site.folder / "gone")
    with pytest.raises(MidnightError, match=r"more\.zip: HTTP 404, or put more\.zip into .*/mine by hand"):
        prepare(dataset, RETRIES)
    assert check(dataset).problems == ("more/*.png (0 of 1)", "labels.h5")
    assert [name for name in content(dataset) if STAGE not in name] == WHOLE[2:]
    (site.folder / "gone").rename(site.folder / "more.zip")
    site.asked()
    assert prepare(dataset, RETRIES).complete
    assert site.asked() == ["more.zip", "labels.h5.gz"]


def test_killed_while_unpacking_begins_that_again(
    site: Site, dataset: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(archive: Path, folder: Path) -> None:
        (folder / "photos" / "a").mkdir(parents=True)
        (folder / "photos" / "a" / "1.png").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(task_module, "unpack", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(dataset, RETRIES)
    assert check(dataset).state == "absent"
    assert site.asked() == ["photos.zip"]
    assert prepare(dataset, RETRIES).complete
    assert site.asked() == ["more.zip", "labels.h5.gz"]
    assert content(dataset) == WHOLE


@pytest.mark.parametrize("name", ["../../photos/a/1.png", "/midnight-photos"])
def test_malicious_archive_is_refused_and_removed(site: Site, dataset: DataSet, name: str) -> None:
    site.put("photos.zip", zipped({"photos/a/1.png": b"1", name: b"2"}), "photos.zip")
    with pytest.raises(MidnightError, match=r"photos\.zip: unsafe: .* would leave the folder; removed"):
        prepare(dataset, RETRIES)
    assert content(dataset) == []
    assert sorted(path.name for path in dataset.root.parent.iterdir()) == ["mine"]
    assert not Path("/midnight-photos").exists()


def test_archive_without_the_expected_files_is_refused(site: Site, dataset: DataSet) -> None:
    site.put("photos.zip", zipped({f"photos/a/{number}.png": b"1" for number in range(3)}), "photos.zip")
    with pytest.raises(MidnightError, match=r"does not hold what it should: photos/b/\*.png \(0 of 3\); removed"):
        prepare(dataset, RETRIES)
    assert content(dataset) == []


def test_archive_put_there_by_hand_is_used_and_kept(site: Site, dataset: DataSet) -> None:
    dataset.root.mkdir(parents=True)
    (site.folder / "photos.zip").rename(dataset.root / "photos.zip")
    assert prepare(dataset, RETRIES).complete
    assert "photos.zip" not in site.asked() and content(dataset) == sorted([*WHOLE, "photos.zip"])
    shutil.rmtree(dataset.root / "photos")
    (dataset.root / "photos.zip").write_bytes(b"cut")
    with pytest.raises(MidnightError, match=r"md5 is .*; replace it, then run again"):
        prepare(dataset, RETRIES)
    assert (dataset.root / "photos.zip").read_bytes() == b"cut"


def test_half_a_folder_is_not_touched_and_told_before_the_download(site: Site, dataset: DataSet) -> None:
    (dataset.root / "photos" / "a").mkdir(parents=True)
    (dataset.root / "photos" / "a" / "1.png").write_text("mine")
    with pytest.raises(MidnightError, match=r"photos: is there, but with 1 of 6 files; move it away or delete it"):
        prepare(dataset, RETRIES)
    assert site.asked() == [] and content(dataset) == ["photos/a/1.png"]


def test_what_is_in_the_way_is_not_overwritten(site: Site, make_dataset: Make) -> None:
    dataset = make_dataset(downloads={"more.zip": Download(0, {"**/1.png": 1})})
    (dataset.root / "more").mkdir(parents=True)
    (dataset.root / "more" / "other").write_text("mine")
    with pytest.raises(MidnightError, match="more: is in the way"):
        prepare(dataset, RETRIES)
    assert (dataset.root / "more" / "other").read_text() == "mine" and not check(dataset).complete


def test_another_process_is_waited_for_and_its_work_is_used(
    site: Site, dataset: DataSet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    gate, original = threading.Event(), site.service.body_end

    def held(entry: Any) -> int | None:
        gate.wait(60)
        return original(entry)

    site.service.body_end = held  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(prepare, dataset, RETRIES)
        assert comes_true(lambda: bool(site.service.requests))
        second = pool.submit(prepare, dataset, RETRIES)
        waits = comes_true(lambda: "waits for process" in caplog.text or second.done())
        gate.set()
        assert first.result().complete and second.result().complete
    assert waits and f"{dataset.root}" in caplog.text
    assert site.asked() == ["photos.zip", "more.zip", "labels.h5.gz"] and content(dataset) == WHOLE


def test_complete_data_in_a_folder_that_cannot_be_written(site: Site, dataset: DataSet) -> None:
    assert prepare(dataset, RETRIES).complete
    with read_only(dataset.root):
        assert prepare(dataset, RETRIES).complete


def test_a_persons_own_folder_of_the_hidden_name_stays(site: Site, dataset: DataSet) -> None:
    own = dataset.root / STAGE / "my-download.zip"
    own.parent.mkdir(parents=True)
    own.write_text("hours of download")
    with pytest.raises(MidnightError, match=r"\.download: is not from a download of this project"):
        prepare(dataset, RETRIES)
    assert own.read_text() == "hours of download"


def test_folder_that_cannot_be_made_is_one_line(site: Site, dataset: DataSet) -> None:
    dataset.root.parent.mkdir()
    dataset.root.write_text("a file")
    with pytest.raises(MidnightError, match="mine: can't be read or written: "):
        prepare(dataset, RETRIES)


def test_full_disk_while_unpacking_keeps_the_download(
    site: Site, dataset: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("midnight.evaluate.prepare.unpack.shutil.copyfileobj", full)
        with pytest.raises(MidnightError, match="the disk is full"):
            prepare(dataset, RETRIES)
    assert content(dataset) == [f"{STAGE}/photos.zip"]
    assert prepare(dataset, RETRIES).complete
    assert site.asked().count("photos.zip") == 1


def test_plain_file_besides_files_by_hand(site: Site, make_dataset: Make) -> None:
    site.put("table.csv", b"id\n1\n2\n", "table.csv")
    downloads = {"table.csv": Download(0)}
    dataset = make_dataset(files={"*.png": 2}, lists={"table.csv": ["{id}.png"]}, downloads=downloads)
    status = prepare(dataset, RETRIES)
    assert status.problems == ("1.png", "2.png", "*.png (0 of 2)") and status.how == dataset.page
    assert content(dataset) == ["table.csv"]


def test_rule_names_the_missing_files_and_all_other_data_sets(tmp_path: Path) -> None:
    evaluation = Evaluation(tasks=["mhist", "bach", "consep", "pcam"], data_root=str(tmp_path / "data"), download=False)
    root = tmp_path / "data" / "consep"
    for number in range(2, 28):
        for kind, suffix in (("Images", "png"), ("Labels", "mat")):
            path = root / "Train" / kind / f"train_{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
    output = tmp_path / "consep.json"
    with pytest.raises(MidnightError) as caught:
        prepare_task("consep", evaluation, output)
    line = str(caught.value)
    assert line.startswith(
        f"task consep: {root}: incomplete: Train/Images/train_1.png, Train/Labels/train_1.mat, Test/"
    )
    assert " and 26 more; get it from https://warwick.ac.uk/" in line
    assert line.endswith("; also missing: mhist, bach, pcam (see `midnight tasks status`)")
    assert not output.exists()


def test_rule_says_the_same_of_the_same_data(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "colorectal-cancer"
    evaluation = Evaluation(tasks=["crc-fields"], data_root=str(tmp_path / "data"))
    for name in ("a/1.png", "b/1.png"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(random.Random(0).randbytes(10))
    texts = []
    for _ in range(2):
        prepare_task("crc-fields", evaluation, tmp_path / "out.json")
        texts.append((tmp_path / "out.json").read_text())
    assert texts[0] == texts[1] and json.loads(texts[0]) == {"tasks": ["crc-fields"], "files": 2, "bytes": 20}
