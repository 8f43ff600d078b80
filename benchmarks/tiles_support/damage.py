"""Slides that go bad while they are read: deleted, cut short, overwritten, made unreadable."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

BLOCK = 1 << 20


def vanish(path: Path) -> None:
    """Delete the file."""
    path.unlink()


def truncate(path: Path) -> None:
    """Cut the file in place after its first third: its directories, which lie behind, are gone."""
    os.truncate(path, path.stat().st_size // 3)


def garble(path: Path) -> None:
    """Overwrite all of the file in place with random bytes."""
    _overwrite(path, 0, os.urandom(BLOCK))


def blank(path: Path) -> None:
    """Overwrite the first half in place with zeros, behind the header: the directories stay, most tiles are gone."""
    _overwrite(path, 16, bytes(BLOCK), path.stat().st_size // 2)


def forbid(path: Path) -> None:
    """Take away all permissions; root reads the file nevertheless."""
    path.chmod(0)


def replace(path: Path) -> None:
    """Put another file, which is no slide, in its place, as a copying job does that goes wrong."""
    other = path.with_suffix(".tmp")
    other.write_text("not a slide\n")
    other.replace(path)


def _overwrite(path: Path, start: int, block: bytes, end: int | None = None) -> None:
    with path.open("rb+") as file:
        file.seek(start)
        left = (end or path.stat().st_size) - start
        while left > 0:
            left -= file.write(block[:left])


def kinds() -> dict[str, Callable[[Path], None]]:
    """What can be done to a file here, by name."""
    found = {"vanish": vanish, "truncate": truncate, "garble": garble, "blank": blank, "replace": replace}
    return found if os.geteuid() == 0 else found | {"forbid": forbid}


class Damager(threading.Thread):
    """Damages slides one after the other, each in the next way, from `start_at` on (seconds after the start)."""

    def __init__(self, slides: list[Path], start_at: float, every: float) -> None:
        super().__init__(daemon=True)
        self.done: dict[str, str] = {}
        self._jobs = list(zip(slides, _repeated(len(slides)), strict=True))
        self._start_at, self._every = start_at, every

    def run(self) -> None:
        """Sleep and damage in turn."""
        time.sleep(self._start_at)
        for slide, kind in self._jobs:
            kinds()[kind](slide)
            self.done[slide.stem] = kind
            time.sleep(self._every)


def _repeated(count: int) -> list[str]:
    names = list(kinds())
    return [names[number % len(names)] for number in range(count)]
