"""A folder that can't be written, also for root, whom permissions don't stop."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.utime", "os.truncate"}
_guarded: list[Path] = []
_hooked: list[bool] = []


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """As if the folder were on a file system that is mounted read-only."""
    if not _hooked:
        sys.addaudithook(_refuse)
        _hooked.append(True)
    _guarded.append(folder.absolute())
    try:
        yield
    finally:
        _guarded.pop()


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not _guarded or not (event in WRITES or event == "open"):
        return
    if event == "open" and not int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    for argument in arguments[:2]:
        if isinstance(argument, str | os.PathLike):
            path = Path(argument).absolute()
            if any(path.is_relative_to(folder) for folder in _guarded) and not (event == "os.mkdir" and path.exists()):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
