"""The files of slides on disk: which ones belong to a slide, and what they look like from outside."""

import datetime
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from midnight.slides.record import SUFFIXES

NS = 10**9
READABLE = 0o444
# Formats of which a slide is a small file that names others beside it.
FOLDER_OF_ITS_NAME = ".mrxs"
BESIDE_IT = (".vms", ".vmu")


def is_slide(name: str) -> bool:
    """Whether a file's name is that of a slide in a format of OpenSlide's."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 - Path() is slow


def walk(root: Path, unreadable: list[OSError] | None = None) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Every folder below `root`, links followed, hidden ones left out, each once; with its files sorted by name.

    Args:
        root: where to begin.
        unreadable: gets what could not be listed.
    """
    seen: set[str] = set()
    waiting = [os.fspath(root)]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up, or to a folder that was visited
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if unreadable is not None:
                unreadable.append(error)
            continue
        yield folder, [entry for entry in entries if not entry.is_dir()]
        folders = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        waiting += [entry.path for entry in reversed(folders)]


def files_of(path: Path) -> list[Path]:
    """The files that a slide consists of, itself first. Of DICOM, every `.dcm` file beside it."""
    suffix = path.suffix.lower()
    if suffix == FOLDER_OF_ITS_NAME:
        others = _listed(path.with_suffix(""))
    elif suffix in BESIDE_IT:
        others = [other for other in _listed(path.parent) if other.name.startswith(path.stem)]
    elif suffix == ".dcm":
        others = [other for other in _listed(path.parent) if other.suffix.lower() == suffix]
    else:
        others = []
    return [path, *(other for other in others if other != path)]


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_file())
    except OSError:
        return []


def look_of(paths: Iterable[Path]) -> dict[str, Any]:
    """What a slide's files look like from outside, for its row in a manifest.

    Returns:
        `modified` (UTC, whole seconds, of the newest); of several files also `files` and `bytes`; `unreadable` where
        the first may not be read. Nothing of a slide that is not there.
    """
    files = list(paths)
    stats = [status for file in files if (status := _stat(file))]
    if not stats or not files[0].is_file():
        return {}
    newest = datetime.datetime.fromtimestamp(max(seconds(status) for status in stats), datetime.UTC)
    look: dict[str, Any] = {"modified": newest.strftime("%Y-%m-%dT%H:%M:%SZ")}
    if len(stats) > 1:
        look |= {"files": len(stats), "bytes": sum(status.st_size for status in stats)}
    return look if os.access(files[0], os.R_OK) else look | {"unreadable": True}


def seconds(status: os.stat_result) -> int:
    """When a file was modified, in whole seconds: file systems keep different parts of a second."""
    return status.st_mtime_ns // NS


def folder_digest(root: Path) -> str:
    """Hash (16 hex digits) of names, sizes and times of the slides below a folder; empty if there are none.

    Costs as much as listing the folder with sizes: no file is opened.
    """
    rows = [
        (os.path.relpath(entry.path, root), status)
        for folder, entries in walk(root)
        for entry in _parts(folder, entries)
        if (status := _stat(entry))
    ]
    return _digest(rows) if any(is_slide(name) for name, _ in rows) else ""


def list_digest(paths: Iterable[Path]) -> str:
    """Hash (16 hex digits) of sizes and times of listed slides; empty if none of them is there."""
    rows = [(str(file), status) for path in paths for file in files_of(path) if (status := _stat(file))]
    return _digest(rows) if rows else ""


def _parts(folder: str, entries: list[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
    """The files of a folder that are slides or may be parts of one."""
    whole = os.path.exists(folder + FOLDER_OF_ITS_NAME) or any(  # noqa: PTH110
        entry.name.lower().endswith(BESIDE_IT) for entry in entries
    )
    return [entry for entry in entries if whole or is_slide(entry.name)]


def _stat(file: Path | os.DirEntry[str]) -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:
        return None


def _digest(rows: Iterable[tuple[str, os.stat_result]]) -> str:
    digest = hashlib.sha256()
    for name, status in sorted(rows, key=lambda row: row[0]):
        line = f"{name}\0{status.st_size}\0{seconds(status)}\0{status.st_mode & READABLE}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
