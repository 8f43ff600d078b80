"""Files whose md5 has been checked, remembered in a sidecar so that a rerun need not read them again."""

import json
from pathlib import Path

from midnight.atomic import write_json
from midnight.hashing import hash_file
from midnight.slides.record import Slide


def sidecar(path: Path) -> Path:
    """The note beside a slide: size, mtime and md5 when it was checked."""
    return path.with_name(path.name + ".verified.json")


def is_verified(path: Path, slide: Slide) -> bool:
    """Whether the file is the slide of the manifest, by the sidecar while size and mtime are as it says, else by md5.

    A file that passes gets a new sidecar.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    if status.st_size != slide.size:
        return False
    if _note(path) == {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "md5": slide.md5}:
        return True
    if hash_file(path, "md5") != slide.md5:
        return False
    remember(path, slide)
    return True


def remember(path: Path, slide: Slide) -> None:
    """Write the sidecar of a file whose md5 has just been found right."""
    status = path.stat()
    write_json(sidecar(path), {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "md5": slide.md5})


def _note(path: Path) -> object:
    try:
        return json.loads(sidecar(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
