"""The files of a data set: one walk over its folder, and how many fit each pattern."""

import csv
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

from midnight.errors import MidnightError
from midnight.evaluate.prepare.rules import expand, pattern_regex


def scan(root: Path, empty: bool = False) -> dict[str, int]:
    """Sizes of the files below `root` by relative path, without hidden ones; none if there is no folder.

    Args:
        root: the folder, or a file, which is then the only one.
        empty: also those of no bytes.

    Raises:
        MidnightError: a folder can't be read.
    """
    try:
        if root.is_file():
            return {root.name: root.stat().st_size}
        return dict(_walk(root, empty)) if root.is_dir() else {}
    except OSError as error:
        raise MidnightError(f"{error.filename or root}: can't be read: {error.strerror}") from error


def _walk(root: Path, empty: bool) -> Iterator[tuple[str, int]]:
    waiting, linked = [("", str(root))], {os.path.realpath(root)}
    while waiting:
        prefix, folder = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_file():
                    if (size := entry.stat().st_size) or empty:
                        yield prefix + entry.name, size
                elif entry.is_dir() and not (entry.is_symlink() and os.path.realpath(entry) in linked):
                    linked |= {os.path.realpath(entry)} if entry.is_symlink() else set()
                    waiting.append((f"{prefix}{entry.name}/", entry.path))


def count_files(needed: Mapping[str, int], names: Collection[str]) -> tuple[int, int, list[str]]:
    """How many of `names` the patterns ask for and find, how many they expect, and each shortage or surplus."""
    found = expected = 0
    problems = []
    for pattern, count in needed.items():
        for one in expand(pattern):
            fits = _matches(one, names)
            found, expected = found + min(fits, count), expected + count
            if fits != count:
                problems.append(f"{one} ({fits:,} of {count:,})" if "*" in one else one)
    return found, expected, problems


def _matches(pattern: str, names: Collection[str]) -> int:
    if "*" not in pattern:
        return int(pattern in names)
    regex = pattern_regex(pattern)
    return sum(regex.fullmatch(name) is not None for name in names)


def listed_files(root: Path, lists: Mapping[str, list[str]], names: Collection[str]) -> set[str]:
    """The files that the rows of CSV files name.

    Args:
        root: the data set's folder.
        lists: pattern of CSV files: paths with `{column}`s.
        names: files that are there, relative to `root`.

    Raises:
        MidnightError: a CSV file can't be read or lacks a column.
    """
    listed = set()
    for pattern, templates in lists.items():
        regex = pattern_regex(pattern)
        for name in filter(regex.fullmatch, names):
            try:
                with open(root / name, newline="", encoding="utf-8-sig") as file:
                    named = (template.format_map(row) for row in csv.DictReader(file) for template in templates)
                    listed |= {PurePosixPath(path).as_posix() for path in named}
            except KeyError as error:
                raise MidnightError(f"{root / name}: has no column {error}; get the file again") from error
            except (OSError, ValueError, csv.Error) as error:
                raise MidnightError(f"{root / name}: can't be read as CSV: {error}; get the file again") from error
    return listed


def is_packed(path: Path) -> bool:
    """Whether the file's name is that of an archive or a gzip file."""
    return path.name.endswith((".zip", ".gz", ".tgz"))
