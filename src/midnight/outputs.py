"""Files and folders that a person names to be written: what another program or person made there stays.

A file that the same command wrote is replaced; any other only with `--force`; an input never, by whatever name or
link it is called. The workflow's own outputs are Snakemake's business.
"""

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from midnight.atomic import write_json
from midnight.errors import MidnightError
from midnight.hashing import hash_file
from midnight.provenance import git_commit

Ours = Callable[[Path], bool]

FORCE = "replace files that another program or person made; never an input"
FOLDER_MARK = "midnight.json"
PNG = b"\x89PNG\r\n\x1a\n"
PNG_HEADER = 33
"""Bytes of a PNG's signature and its first chunk, after which a text may stand."""
HEAD = 4096


def check_file(path: Path, inputs: Iterable[str | Path], ours: Ours, force: bool = False) -> None:
    """Refuse to write a file where that would destroy something.

    Args:
        path: the file to write.
        inputs: files that the command reads.
        ours: whether an existing file was made by the same command.
        force: replace it whoever made it.

    Raises:
        MidnightError: it is an input, no ordinary file, or was made by somebody else.
    """
    if not os.path.lexists(path):
        return
    if path.is_dir():
        raise MidnightError(f"{path}: is a folder; name a file")
    if path.exists() and not path.is_file():
        raise MidnightError(f"{path}: is no ordinary file; name another one")
    if _identity(path) in _identities(inputs):
        raise MidnightError(f"{path}: is read by this command and can't be written over; name another file")
    if not (force or ours(path)):
        raise MidnightError(
            f"{path}: is there, and this command did not write it; name another file, or replace it by --force"
        )


@contextlib.contextmanager
def signed_folder(path: Path, inputs: Iterable[str | Path], command: str, force: bool = False) -> Iterator[Path]:
    """Write a folder that carries a list of what was written (`midnight.json`), by which its files are known again.

    Args:
        path: the folder; the block makes it if it is absent.
        inputs: files and folders that the command reads.
        command: by which it is made; one command's folder is not another's.
        force: replace files in it whoever made them.

    Raises:
        MidnightError: it is an input or holds one, is no folder, or has files that this command did not write.
    """
    path = Path(path)
    _check_folder(path, inputs, command, force)
    before = _stamps(path)
    yield path
    written = [name for name, stamp in _stamps(path).items() if before.get(name) != stamp and name != FOLDER_MARK]
    files = {name: hash_file(path / name) for name in sorted(written)}
    write_json(path / FOLDER_MARK, {"command": command, "commit": git_commit(), "sha256": files})


def _check_folder(path: Path, inputs: Iterable[str | Path], command: str, force: bool) -> None:
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise MidnightError(f"{path}: is a file; name a folder")
    taken = _identities(inputs)
    if _identity(path) in taken:
        raise MidnightError(f"{path}: is read by this command and can't be written over; name another folder")
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    if held := [entry for entry in entries if _identity(entry) in taken]:
        raise MidnightError(f"{held[0]}: is read by this command; name another folder to write")
    if force or not entries:
        return
    known = _signed(path, command)
    if known is None:
        raise MidnightError(
            f"{path}: is not empty, and `{command}` did not write it; name another folder, or add --force"
        )
    for entry in entries:
        if entry.is_file() and entry.name != FOLDER_MARK and known.get(entry.name) != hash_file(entry):
            raise MidnightError(
                f"{entry}: was changed or put there since `{command}` wrote the folder; "
                "name another one, or replace it by --force"
            )


def _signed(path: Path, command: str) -> dict[str, str] | None:
    """The files that a command wrote into a folder, with their SHA-256; None if it did not write the folder."""
    try:
        mark = json.loads((path / FOLDER_MARK).read_text(encoding="utf-8"))
        return dict(mark["sha256"]) if mark["command"] == command else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """The files of a folder: one that is written anew has another inode or time."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        stats = {entry.name: entry.stat(follow_symlinks=False) for entry in entries if entry.is_file()}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in stats.items()}


def _identities(paths: Iterable[str | Path]) -> set[tuple[int, int]]:
    return {identity for path in paths if (identity := _identity(path))}


def _identity(path: str | Path) -> tuple[int, int] | None:
    """What all names and links of a file share, as in `os.path.samefile`; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - Path() of each of 12,000 slides is most of its cost
    except OSError:
        return None
    return status.st_dev, status.st_ino


def text_with(*marks: str) -> Ours:
    """Tells files whose first 4 kB hold all of these texts."""

    def ours(path: Path) -> bool:
        try:
            with path.open("rb") as file:
                head = file.read(HEAD).decode(errors="replace")
        except OSError:
            return False
        return all(mark in head for mark in marks)

    return ours


def sign_png(png: bytes, command: str) -> bytes:
    """A PNG that says by which command it was made (a tEXt chunk "Software")."""
    body = b"tEXtSoftware\0" + command.encode("latin-1")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:PNG_HEADER] + chunk + png[PNG_HEADER:]


def png_by(command: str) -> Ours:
    """Tells PNGs that `sign_png` signed."""

    def ours(path: Path) -> bool:
        try:
            with path.open("rb") as file:
                head = file.read(HEAD)
        except OSError:
            return False
        return head.startswith(PNG) and sign_png(b"", command) in head

    return ours
