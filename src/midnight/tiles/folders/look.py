"""What a folder holds, by names, sizes and times. Light: the workflow imports it at its start."""

import os
from collections.abc import Iterator
from pathlib import Path

from midnight.errors import MidnightError
from midnight.hashing import hash_value

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""Of images that are read, in lower case."""


def look(root: Path) -> str:
    """Hash of the names, sizes (bytes) and times (ns) of all files: changes when the folder may have.

    Raises:
        MidnightError: the folder can't be read.
    """
    return hash_value([[name, stat and stat.st_size, stat and stat.st_mtime_ns] for name, stat in walk(root)])


def walk(root: Path) -> Iterator[tuple[str, os.stat_result | None]]:
    """Names below a folder in their order, and what the disk says of them: None of a broken link.

    Raises:
        MidnightError: the folder can't be read.
    """

    def failed(error: OSError) -> None:
        raise MidnightError(f"{error.filename}: can't be read: {error.strerror}") from error

    seen: set[tuple[int, int]] = set()  # links may lead back
    for folder, folders, names in os.walk(root, onerror=failed, followlinks=True):
        here = Path(folder).stat()
        if (here.st_dev, here.st_ino) in seen:
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            yield path.relative_to(root).as_posix(), path.stat() if path.exists() else None
