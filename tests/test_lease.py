import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midnight import lease
from midnight.errors import MidnightError
from midnight.lease import Lease, hold
from tests.read_only import read_only
from tests.waiting import comes_true

HOLDS = """
import sys
from pathlib import Path
from midnight.lease import hold
with hold(Path(sys.argv[1])):
    print("holds", flush=True)
    sys.stdin.read()
"""
ELSEWHERE = json.dumps({"host": "elsewhere", "space": "", "pid": 7, "token": "t"})


class Clock:
    """Time that passes only in pauses; `each` is called in every one of them."""

    def __init__(self, each: Callable[[int], None] = lambda _: None):
        self.now, self.pauses, self.each = 0.0, 0, each

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.pauses += 1
        self.each(self.pauses)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "slide.lock"


@pytest.fixture
def holder(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has the lock."""
    command = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "holds\n"
        yield process
        process.kill()


def with_clock(monkeypatch: pytest.MonkeyPatch, each: Callable[[int], None] = lambda _: None) -> Clock:
    clock = Clock(each)
    monkeypatch.setattr("midnight.lease.time.monotonic", lambda: clock.now)
    return clock


def never(_: float) -> None:
    pytest.fail("waits")


def test_another_process_is_waited_for_and_that_is_said(
    path: Path, holder: "subprocess.Popen[str]", caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    paused = threading.Event()

    def pause(seconds: float) -> None:
        if not paused.is_set():
            paused.set()
            holder.communicate("")

    with hold(path, pause):
        assert paused.is_set() and path.exists()
    assert f"waits for process {holder.pid} on " in caplog.text
    assert not path.exists()


def test_a_killed_owner_on_this_machine_is_not_waited_for(
    path: Path, holder: "subprocess.Popen[str]", caplog: pytest.LogCaptureFixture
) -> None:
    holder.kill()
    holder.wait()
    with hold(path, never):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert "taken over" in caplog.text


def test_threads_exclude_each_other(path: Path) -> None:
    inside: list[int] = []

    def work(number: int) -> None:
        with hold(path, lambda _: None):
            inside.append(number)
            assert inside == [number]
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not list(path.parent.iterdir())


def test_a_silent_owner_elsewhere_is_taken_over_after_its_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(ELSEWHERE)
    clock = with_clock(monkeypatch)
    with hold(path, clock.pause):
        assert lease.STALE < clock.now < lease.STALE + 2


def test_an_owner_elsewhere_that_shows_signs_of_life_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(ELSEWHERE)
    last = int(3 * lease.STALE / lease.POLL)

    def touch(pauses: int) -> None:
        if pauses < last:
            os.utime(path, (pauses, pauses))

    clock = with_clock(monkeypatch, touch)
    with hold(path, clock.pause):
        assert clock.now > 4 * lease.STALE - 2


@pytest.mark.parametrize("text", ["", "{}", "[1]", "no JSON"])
def test_a_lock_that_says_nothing_is_waited_for_too(path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    path.write_text(text)
    clock = with_clock(monkeypatch)
    with hold(path, clock.pause):
        assert clock.now > lease.STALE


def test_what_the_pause_raises_ends_the_wait(path: Path) -> None:
    path.write_text(ELSEWHERE)

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), hold(path, stop):
        pass
    assert path.read_text() == ELSEWHERE


def test_an_owner_that_stood_still_notices_that_it_lost_the_lock(path: Path) -> None:
    with hold(path, never) as held:
        held.check()
        path.write_text(ELSEWHERE)
        held._seen = 0.0
        with pytest.raises(MidnightError, match=r"slide\.lock: another process has taken over .*run again"):
            held.check()
    assert path.read_text() == ELSEWHERE, "it is not ours to remove"


def test_the_owner_shows_that_it_lives(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.01)
    with hold(path, never):
        os.utime(path, (1, 1))
        assert comes_true(lambda: path.stat().st_mtime > 1)


def test_a_lock_that_changed_hands_meanwhile_is_given_back(path: Path) -> None:
    other = Lease(path)
    other.take(never)
    lease._remove(path, ELSEWHERE)
    assert path.read_text() == other.owner
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_one_line(path: Path) -> None:
    with read_only(path.parent), pytest.raises(MidnightError, match="can't be written: Read-only"), hold(path):
        pass
