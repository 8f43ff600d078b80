import errno
import logging
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from midnight.errors import MidnightError
from midnight.tiles.draw import lost_slides as module
from midnight.tiles.draw.lost_slides import DAMAGED, LostSlide, Quarantine, _append, read_quarantine
from tests.patience import Time


def slide(number: int, reason: str = "no such file") -> LostSlide:
    return LostSlide(f"s{number}", "demo", f"/slides/s{number}.svs", reason)


def test_a_slide_has_one_line_and_one_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "run" / "quarantined.tsv"
    with caplog.at_level(logging.WARNING):
        for number in (1, 2, 1):
            Quarantine(path).add(slide(number, "bad\tand\nbroken"))
    assert path.read_text().splitlines() == [
        "s1\tdemo\t/slides/s1.svs\tbad and broken",
        "s2\tdemo\t/slides/s2.svs\tbad and broken",
    ]
    assert [entry.getMessage().split(":")[0] for entry in caplog.records] == [
        "slide s1 is left out",
        "slide s2 is left out",
    ]
    assert [lost.reason for lost in read_quarantine(path)] == ["bad and broken"] * 2


def add_all(path: Path) -> None:
    for number in range(40):
        Quarantine(path).add(slide(number))


def test_processes_that_write_at_once_lose_and_repeat_nothing(tmp_path: Path) -> None:
    path = tmp_path / "quarantined.tsv"
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        list(pool.map(add_all, [path] * 3))
    assert sorted(lost.slide_id for lost in read_quarantine(path)) == sorted(f"s{number}" for number in range(40))


def test_a_record_that_cannot_be_written_does_not_end_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    Quarantine(tmp_path / "file" / "quarantined.tsv").add(slide(1))
    assert "can't be written" in caplog.text
    assert "slide s1 is left out: no such file" in caplog.text


def test_what_could_not_be_written_is_written_when_it_can_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    quarantine = Quarantine(tmp_path / "run" / "quarantined.tsv", lambda: time.now)
    (tmp_path / "run").write_text("a file where the folder should be")
    quarantine.add(slide(1))
    quarantine.flush()
    assert quarantine.pending
    (tmp_path / "run").unlink()
    quarantine.flush()
    assert quarantine.pending
    time.sleep(1.0)
    quarantine.flush()
    assert not quarantine.pending
    assert [lost.slide_id for lost in read_quarantine(tmp_path / "run" / "quarantined.tsv")] == ["s1"]
    assert caplog.text.count("slide s1 is left out") == 1


def test_what_is_not_written_by_the_end_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    quarantine = Quarantine(tmp_path / "file" / "quarantined.tsv")
    quarantine.add(slide(1))
    quarantine.add(slide(2))
    quarantine.flush(at_once=True)
    assert "can't be written: File exists: s1, s2" in caplog.text


def test_without_file_handles_some_are_freed_for_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, taken = tmp_path / "quarantined.tsv", [1, 2]

    def append(*arguments: object) -> bool:
        if taken:
            raise OSError(errno.EMFILE, "Too many open files")
        return _append(*arguments)

    monkeypatch.setattr(module, "_append", append)
    Quarantine(path).add(slide(1), lambda: bool(taken) and bool(taken.pop()))
    assert [lost.slide_id for lost in read_quarantine(path)] == ["s1"]


def test_slides_that_are_damaged_in_parts_have_a_record_of_their_own(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "quarantined.tsv")
    quarantine.add_damaged(slide(1, "1 of 32"))
    assert read_quarantine(tmp_path / "quarantined.tsv") == []
    assert read_quarantine(tmp_path / DAMAGED) == [slide(1, "1 of 32")]


def test_reading_takes_what_is_whole(tmp_path: Path) -> None:
    assert read_quarantine(tmp_path / "none.tsv") == []
    (tmp_path / "cut.tsv").write_text("s1\tdemo\t/s1\tgone\ns2\tde")
    assert [lost.slide_id for lost in read_quarantine(tmp_path / "cut.tsv")] == ["s1"]
    with pytest.raises(MidnightError, match="can't be read"):
        read_quarantine(tmp_path)
