"""Files whose md5 has been checked, remembered in a sidecar so that a rerun need not read them again."""

import errno
import json
import os
from pathlib import Path

from midnight.atomic import write_json
from midnight.hashing import hash_file
from midnight.slides.record import Slide

READ_ONLY = frozenset((errno.EROFS, errno.EACCES, errno.EPERM))


def sidecar(path: Path) -> Path:
    """The note beside a slide: size, mtime and md5 when it was checked."""
    return path.with_name(path.name + ".verified.json")


def is_verified(path: Path, slide: Slide, notes: Path | None = None) -> bool:
    """Whether the file is the slide of the manifest, by the sidecar while size and mtime are as it says, else by md5.

    A file that passes gets a new sidecar; in a folder that can't be written, a note in the folder `notes` if given.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    if status.st_size != slide.size:
        return False
    known = _facts(status, slide)
    if any(_read(note) == known for note in _notes(path, slide, notes)):
        return True
    if hash_file(path, "md5") != slide.md5:
        return False
    _write(known, _notes(path, slide, notes))
    return True


def remember(path: Path, slide: Slide, notes: Path | None = None) -> None:
    """Write the note of a file whose md5 has just been found right."""
    _write(_facts(path.stat(), slide), _notes(path, slide, notes))


def _facts(status: os.stat_result, slide: Slide) -> dict[str, object]:
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "md5": slide.md5}


def _notes(path: Path, slide: Slide, notes: Path | None) -> list[Path]:
    """Where a slide's note may be: beside it, or in the other folder."""
    return [sidecar(path), *([notes / f"{slide.file_id}.json"] if notes else [])]


def _write(known: dict[str, object], places: list[Path]) -> None:
    """Write a note to the first place that can be written; without any, the file is read again by the next run."""
    for place in places:
        try:
            write_json(place, known)
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
        else:
            return


def _read(note: Path) -> object:
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
