"""Unpacking of zip, tar.gz and gzip files from the web: plain files only, and none outside the folder."""

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from midnight.errors import MidnightError
from midnight.evaluate.prepare.fetch import writing

TARS = (".tar.gz", ".tgz")
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, RuntimeError)
JUNK = "__MACOSX"


class BadArchiveError(MidnightError):
    """A file that came from elsewhere is not what it should be."""


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive into a new folder; a gzip file becomes the one file without its suffix.

    Raises:
        BadArchiveError: the archive is damaged, or a member would leave the folder or is a link.
        MidnightError: the disk is full. The folder is removed in all these cases.
    """
    with writing(folder.parent), _cleaned(folder):
        folder.mkdir()
        try:
            with tqdm(desc=f"unpacking {archive.name}", unit="file", mininterval=10) as bar:
                for _ in _members(archive, folder):
                    bar.update()
        except DAMAGE as error:
            raise BadArchiveError(f"{archive}: damaged: {' '.join(str(error).split())}") from error


@contextmanager
def _cleaned(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _members(archive: Path, folder: Path) -> Iterator[None]:
    if archive.name.endswith(".zip"):
        yield from _unzip(archive, folder)
    elif archive.name.endswith(TARS):
        yield from _untar(archive, folder)
    else:
        with gzip.open(archive, "rb") as content:
            _write(content, folder / archive.name.removesuffix(".gz"))
        yield


def _unzip(archive: Path, folder: Path) -> Iterator[None]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise BadArchiveError(f"{archive}: unsafe: {info.filename!r} is a link or special file")
            path = _target(archive, info.orig_filename, folder)
            if path and not info.is_dir():
                with file.open(info) as content:
                    _write(content, path)
                yield


def _untar(archive: Path, folder: Path) -> Iterator[None]:
    with gzip.open(archive, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as file:
        for info in file:
            if not (info.isreg() or info.isdir()):
                raise BadArchiveError(f"{archive}: unsafe: {info.name!r} is a link or special file")
            path = _target(archive, info.name, folder)
            content = file.extractfile(info)
            if path and content:
                _write(content, path)
                yield
        # tar stops at its own end; gzip's checksum comes after it
        while stream.read(1 << 20):
            pass


def _target(archive: Path, name: str, folder: Path) -> Path | None:
    """Where a member goes; None for what macOS adds."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise BadArchiveError(f"{archive}: unsafe: {name!r} would leave the folder")
    return None if path.parts[:1] in ((), (JUNK,)) else folder / path


def _write(content: IO[bytes] | gzip.GzipFile, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        raise BadArchiveError(f"{path.name}: is in the archive twice")
    with path.open("xb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
