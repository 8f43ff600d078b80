import errno
import logging
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midnight import outages
from midnight.errors import MidnightError, UnreadableError
from midnight.outages import HANDLES, PASSING, Patience, errno_in, few_handles, trial
from tests.patience import Time


def failing(times: int, number: int) -> Callable[[], str]:
    """Fails so often, then succeeds."""
    left = iter(range(times))

    def action() -> str:
        if next(left, None) is not None:
            raise OSError(number, os.strerror(number))
        return "read"

    return action


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """24 files in two folders."""
    found = []
    for number in range(24):
        path = tmp_path / ("a" if number < 12 else "b") / f"{number}.svs"
        path.parent.mkdir(exist_ok=True)
        path.write_text("slide")
        found.append(str(path))
    return found


@pytest.mark.parametrize("number", sorted(PASSING))
def test_what_passes_is_tried_again(files: list[str], number: int) -> None:
    time = Time()
    assert time.patience(600, files).insist(failing(4, number), files[0]) == "read"
    assert time.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8])


def test_the_log_says_what_is_waited_for_and_that_it_came_back(
    files: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    Time().patience(600, files).insist(failing(3, errno.ESTALE), files[0])
    assert [entry.getMessage() for entry in caplog.records] == [
        f"{files[0]}: stale file handle; waiting for it, up to 600 s",
        f"{files[0]}: can be read again, after 0.7 s",
    ]


def reads(path: str) -> Callable[[], str]:
    return lambda: Path(path).read_text()


def test_a_folder_that_is_away_is_waited_for(files: list[str], caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(files[0]).parent
    folder.rename(folder.with_name("away"))
    time = Time(lambda now: folder.with_name("away").rename(folder) if 200 < now < 231 else None)
    with caplog.at_level(logging.WARNING):
        assert time.patience(600, files).insist(reads(files[0]), files[0]) == "slide"
    assert max(time.pauses) == 30.0
    assert all(later >= before for before, later in zip(time.pauses, time.pauses[1:], strict=False))
    assert 3 <= len(caplog.records) <= 6


def test_an_empty_mount_point_is_a_folder_that_is_away(files: list[str]) -> None:
    folder = Path(files[0]).parent
    folder.rename(folder.with_name("away"))
    folder.mkdir()
    (folder / "README").write_text("not mounted")
    with pytest.raises(MidnightError, match="bring the folder back"):
        Time().patience(600, files).insist(reads(files[0]), files[0])


def test_a_folder_that_stays_away_ends_the_run_after_the_limit(files: list[str]) -> None:
    folder = Path(files[0]).parent
    folder.rename(folder.with_name("away"))
    time = Time()
    expected = r"0\.svs: no such file or directory, after 600 s of waiting, as for 12 of 24 files .*: bring the folder"
    with pytest.raises(MidnightError, match=expected):
        time.patience(600, files).insist(reads(files[0]), files[0])
    assert 599 < time.now <= 600


def test_a_file_that_alone_is_missing_is_given_up_at_once(files: list[str]) -> None:
    time = Time()
    Path(files[0]).unlink()
    with pytest.raises(FileNotFoundError):
        time.patience(600, files).insist(reads(files[0]), files[0])
    assert time.now <= 0.1


def test_a_file_in_a_folder_of_its_own_is_judged_by_those_beside_the_folder(tmp_path: Path) -> None:
    paths = [tmp_path / "cohort" / f"uuid{number}" / "slide.svs" for number in range(12)]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text("slide")
    time, files = Time(), [str(path) for path in paths]
    patience = time.patience(600, files)
    paths[0].unlink()
    paths[0].parent.rmdir()
    with pytest.raises(FileNotFoundError):
        patience.insist(reads(files[0]), files[0])
    assert time.now <= 0.1
    (tmp_path / "cohort").rename(tmp_path / "away")
    with pytest.raises(MidnightError, match="as for 12 of 12 files"):
        patience.insist(reads(files[0]), files[0])


def test_a_small_folder_that_stays_away_costs_only_its_files_and_one_wait(tmp_path: Path) -> None:
    files = [str(tmp_path / ("few" if number < 2 else "many") / f"{number}.svs") for number in range(40)]
    (tmp_path / "many").mkdir()
    for file in files[2:]:
        Path(file).write_text("slide")
    time = Time()
    patience = time.patience(600, files)
    for file in files[:2]:
        with pytest.raises(FileNotFoundError):
            patience.insist(reads(file), file)
    assert time.now <= 600


def test_the_limit_is_for_all_that_is_waited_and_comes_back_with_time(files: list[str]) -> None:
    time = Time()
    patience = time.patience(1.0, files)

    def waited() -> float:
        before = time.now
        with pytest.raises(OSError, match="Stale"):
            patience.insist(failing(99, errno.ESTALE), files[0])
        return time.now - before

    assert waited() == pytest.approx(1.0)
    assert waited() == pytest.approx(0.0)
    time.now += 5.0
    assert waited() == pytest.approx(0.5, abs=0.1)


def test_a_place_that_cannot_be_read_in_a_file_that_can_is_given_up_in_seconds(files: list[str]) -> None:
    time = Time()
    with pytest.raises(OSError, match="Input/output"):
        time.patience(600, files).insist(failing(99, errno.EIO), files[0])
    assert len(time.pauses) == outages.TRIES_AT_A_PLACE
    assert time.now < 5


def test_a_fault_that_the_system_knows_nothing_of_is_tried_once_more(files: list[str]) -> None:
    time, tries = Time(), []

    def damaged() -> None:
        tries.append(1)
        raise UnreadableError("can't be decoded")

    with pytest.raises(UnreadableError, match="decoded"):
        time.patience(600, files).insist(damaged, files[0])
    assert (len(tries), time.now) == (2, 0.0)


def test_without_file_handles_some_are_freed_and_nothing_is_waited_for(files: list[str]) -> None:
    time, open_files = Time(), [1, 2, 3]
    free = lambda: bool(open_files) and bool(open_files.pop())  # noqa: E731
    assert time.patience(600, files).insist(failing(3, errno.EMFILE), files[0], free) == "read"
    assert (open_files, time.now) == ([], 0.0)


def test_file_handles_that_others_hold_are_waited_for_and_no_file_is_blamed(files: list[str]) -> None:
    time = Time()
    assert time.patience(600, files).insist(failing(3, errno.ENFILE), files[0]) == "read"
    assert time.now > 0
    with pytest.raises(MidnightError, match=r"too many open files, after 600 s of waiting: raise `ulimit -n`"):
        time.patience(600, files).insist(failing(99, errno.EMFILE), files[0])


def test_without_a_limit_nothing_is_waited_for(files: list[str]) -> None:
    time = Time()
    Path(files[0]).unlink()
    with pytest.raises(FileNotFoundError):
        time.patience(0, files).insist(reads(files[0]), files[0])
    with pytest.raises(OSError, match="Stale"):
        time.patience(0, files).insist(failing(99, errno.ESTALE), files[1])
    assert time.pauses == []


def test_other_errors_are_nobody_s_business_here(files: list[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        Patience(600, files).insist(lambda: 1 // 0, files[0])


@pytest.fixture
def no_handles() -> Iterator[None]:
    """This process may open two more files."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = os.open(os.devnull, os.O_RDONLY)
    os.close(first)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + 2, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_in_a_healthy_process_no_handles_are_wanting() -> None:
    assert few_handles() == 0


def test_a_library_may_hide_that_handles_are_wanting(files: list[str], no_handles: None) -> None:
    time, open_files = Time(), [1]

    def opens_three_files() -> str:
        if open_files:
            raise UnreadableError("not in a format that it reads")
        return "read"

    assert few_handles() in HANDLES
    assert time.patience(600, files).insist(opens_three_files, files[0], lambda: bool(open_files.pop())) == "read"


def test_a_trial_opens_and_reads(files: list[str], tmp_path: Path) -> None:
    assert trial(files[0]) == 0
    assert trial(tmp_path / "none") == errno.ENOENT
    assert trial(tmp_path) == errno.EISDIR


def test_errors_are_found_in_a_library_s_words() -> None:
    assert errno_in("Couldn't open /s.svs: Too many open files") == errno.EMFILE
    assert errno_in("Couldn't read: Stale file handle") == errno.ESTALE
    assert errno_in("Premature end of JPEG file") == 0
