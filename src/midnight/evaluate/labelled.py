"""Labelled images of your own, as a folder or as a CSV: classes, given splits, groups. Light: the workflow imports it.

A folder has a sub-folder per class, or `train` with `val`, `test` or both, each with the sub-folders of the classes;
images may lie at any depth below their class. A CSV has the columns path and label, and optionally split and group.
Images of one group (a slide, a patient) belong together. It is, in this order: the CSV's column; a TCGA barcode in
every image's path (the patient, TCGA-XX-XXXX); the sub-folder of the class, where every image lies in one; the start of
the file's name, where every name ends in a tile's coordinates (SLIDE_1024_2048, SLIDE [x=1024,y=2048,…]).
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from midnight.errors import MidnightError
from midnight.evaluate.prepare.files import scan
from midnight.hashing import hash_value
from midnight.tiles.folders.look import EXTENSIONS

ROLES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What splits are called, in lower case."""
ALL = "all"
"""The only split where none is given."""
BARCODE = re.compile(r"TCGA-[0-9A-Z]{2}-[0-9A-Z]{4}(?![0-9A-Z])", re.IGNORECASE)
COORDINATES = re.compile(r"(.+?)[ _-]*(?:\[[^\]]*x=\d+[^\]]*y=\d+[^\]]*\]|[_-]x?\d+[_-]y?\d+)", re.IGNORECASE)
SHOWN = 4


@dataclass(frozen=True)
class Sample:
    """An image: its name (below the folder; in a CSV as written there), file, class, split ("all": none), group."""

    name: str
    path: Path
    label: str
    split: str = ALL
    group: str = ""


@dataclass(frozen=True)
class Labelled:
    """The images by split, class and name; by what they are grouped ("": unknown); what was left out, in words."""

    samples: tuple[Sample, ...]
    grouped_by: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def classes(self) -> list[str]:
        """The classes of all splits, in alphabetical order."""
        return sorted({sample.label for sample in self.samples})

    @property
    def splits(self) -> list[str]:
        """The given splits, or "all"."""
        there = {sample.split for sample in self.samples}
        return [split for split in ("train", "val", "test", ALL) if split in there]

    def check(self) -> None:
        """Check that heads can be fitted and scored.

        Raises:
            ValueError: fewer than two classes, or a split lacks one.
        """
        classes = self.classes
        if len(classes) < 2:
            raise ValueError(f"needs a sub-folder of images for each of two classes or more, found {classes}")
        for split in self.splits:
            if missing := sorted(set(classes) - {sample.label for sample in self.samples if sample.split == split}):
                raise ValueError(f"split {split!r} has no images of {missing[0]!r}; each split needs every class")


def read_labelled(root: Path) -> Labelled:
    """The images of a folder or CSV.

    Raises:
        ValueError: the splits are not clear, or the CSV is wrong; says why, without the root.
        MidnightError: a folder can't be read.
    """
    found = _read_table(root) if root.is_file() else _read_folder(root)
    order = {split: place for place, split in enumerate(("train", "val", "test", ALL))}
    ordered = sorted(found.samples, key=lambda item: (order[item.split], item.label, PurePosixPath(item.name).parts))
    return Labelled(tuple(ordered), found.grouped_by, found.left_out)


def _read_folder(root: Path) -> Labelled:
    files = [PurePosixPath(name) for name in scan(root, empty=True)]
    images = [file for file in files if file.suffix.lower() in EXTENSIONS]
    depth = int(_has_splits({image.parts[0] for image in images if len(image.parts) > 1}))
    samples = [
        Sample(str(image), root / image, image.parts[depth], ROLES[image.parts[0].lower()] if depth else ALL)
        for image in images
        if len(image.parts) > depth + 1
    ]
    deeper = [PurePosixPath(sample.name).parts[depth + 1 : -1] for sample in samples]
    folders = [parts[0] for parts in deeper] if all(deeper) else []
    grouped_by, groups = _guess_groups(samples, folders)
    left_out = _left_out(root, samples, files, images, depth)
    return Labelled(_grouped(samples, groups), grouped_by, tuple(left_out))


def _has_splits(folders: set[str]) -> bool:
    """Whether the folders that hold images are splits rather than classes."""
    named = sorted(name for name in folders if name.lower() in ROLES)
    roles = {ROLES[name.lower()] for name in named}
    others = sorted(folders - set(named))
    if not named or ("train" not in roles and others):  # control and test may well be classes
        return False
    if others:
        raise ValueError(f"has the split {', '.join(named)} and beside it {others[0]!r}; move that away or rename it")
    _check_roles(roles)
    return True


def _check_roles(roles: set[str]) -> None:
    if "train" not in roles or len(roles) < 2:
        raise ValueError(f"has the split {', '.join(sorted(roles))} only; it needs train, and val or test")


def _left_out(
    root: Path, samples: Sequence[Sample], files: Sequence[PurePosixPath], images: Sequence[PurePosixPath], depth: int
) -> list[str]:
    """Images outside of classes, classes without images, and files that are no images, each in words."""
    taken = {sample.name for sample in samples}
    stray = sorted(str(image) for image in images if str(image) not in taken)
    tops = [root / name for name in sorted({image.parts[0] for image in images})] if depth else [root]
    folders = {folder for top in tops if top.is_dir() for folder in top.iterdir() if folder.is_dir()}
    used = {root.joinpath(*PurePosixPath(name).parts[: depth + 1]) for name in taken}
    bare = sorted(str(path.relative_to(root)) for path in folders - used if not path.name.startswith("."))
    other = Counter(file.suffix.lower() or "without ending" for file in set(files) - set(images))
    kinds = [f"{count:,} {suffix}" for suffix, count in sorted(other.items())]
    lines = [f"{len(stray):,} images outside of the class folders: {_some(stray)}"] if stray else []
    lines += [f"folders without an image: {_some(bare)}"] if bare else []
    return lines + ([f"files that are no images: {_some(kinds)}"] if kinds else [])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _guess_groups(samples: Sequence[Sample], folders: Sequence[str]) -> tuple[str, list[str]]:
    """By what the images can be grouped, and the group of each; nothing where a class would be one group only."""
    rules: list[tuple[str, Callable[[], list[str]]]] = [
        ("the patient in TCGA barcodes", lambda: [_barcode(sample.name) for sample in samples]),
        ("the sub-folders of the classes", lambda: list(folders)),
        ("the start of names with coordinates", lambda: _starts(samples)),
    ]
    for rule, find in rules:
        groups = find()
        if groups and all(groups) and _divisible(samples, groups):
            return rule, groups
    return "", [""] * len(samples)


def _barcode(name: str) -> str:
    match = BARCODE.search(name)
    return match[0].upper() if match else ""


def _starts(samples: Sequence[Sample]) -> list[str]:
    """What names have before coordinates; nothing where no two are equal: those were no coordinates."""
    found = [COORDINATES.fullmatch(PurePosixPath(sample.name).stem) for sample in samples]
    starts = [match[1] if match else "" for match in found]
    return starts if len(set(starts)) < len(starts) else []


def _divisible(samples: Sequence[Sample], groups: Sequence[str]) -> bool:
    pairs = {(sample.label, group) for sample, group in zip(samples, groups, strict=True)}
    return min(Counter(label for label, _ in pairs).values()) > 1


def _read_table(path: Path) -> Labelled:
    rows = _rows(path)
    split = any(row.get("split") for _, row in rows)
    group = any(row.get("group") for _, row in rows)
    samples: list[Sample] = []
    lines: dict[str, int] = {}
    for line, row in rows:
        sample = _sample(path.parent, line, row, split, group)
        if sample.name in lines:
            raise ValueError(f"line {line}: {sample.name} is in line {lines[sample.name]} already")
        lines[sample.name] = line
        samples.append(sample)
    if missing := [sample for sample in samples if not sample.path.is_file()]:
        first = f"{missing[0].name} (line {lines[missing[0].name]})"
        raise ValueError(
            f"{len(missing):,} of {len(rows):,} images are not there, the first: {first}; paths are "
            "relative to the CSV's folder"
        )
    if split:
        _check_roles({sample.split for sample in samples})
    if group:
        return Labelled(tuple(samples), "the column 'group'")
    grouped_by, groups = _guess_groups(samples, [])
    return Labelled(_grouped(samples, groups), grouped_by)


def _grouped(samples: Sequence[Sample], groups: Sequence[str]) -> tuple[Sample, ...]:
    return tuple(replace(sample, group=group) for sample, group in zip(samples, groups, strict=True))


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows with their line numbers; names of columns in lower case, blanks around values removed."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [str(name).strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            if missing := [name for name in ("path", "label") if name not in columns]:
                raise ValueError(f"has no column {missing[0]!r}; it needs path and label, and may have split and group")
            found = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"can't be read as CSV: {error}") from error
    return [(line, {name: (row[name] or "").strip() for name in columns}) for line, row in found]


def _sample(folder: Path, line: int, row: dict[str, str], split: bool, group: bool) -> Sample:
    needed = ["path", "label", *(["split"] if split else []), *(["group"] if group else [])]
    if missing := [name for name in needed if not row[name]]:
        raise ValueError(f"line {line}: no {missing[0]}; every row needs one")
    if split and row["split"].lower() not in ROLES:
        raise ValueError(f"line {line}: split {row['split']!r} is none of train, val, test")
    name = PurePosixPath(row["path"])
    if name.suffix.lower() not in EXTENSIONS:
        raise ValueError(f"line {line}: {name} is no image that can be read: {', '.join(sorted(EXTENSIONS))}")
    role = ROLES[row["split"].lower()] if split else ALL
    return Sample(str(name), folder / name, row["label"], role, row["group"] if group else "")


def look(root: Path) -> str:
    """Changes when an image (or the CSV) is added, moved, removed or replaced: names, sizes, times; "": nothing there.

    Raises:
        MidnightError: a folder can't be read.
    """
    if not root.is_file():
        return _look((name, root / name) for name in sorted(scan(root, empty=True)))
    try:
        listed = [(sample.name, sample.path) for sample in read_labelled(root).samples]
    except ValueError:  # said where the task is prepared
        listed = []
    return _look([(root.name, root), *listed])


def _look(files: Iterable[tuple[str, Path]]) -> str:
    try:
        stats = [(name, path.stat()) for name, path in files]
    except OSError as error:
        raise MidnightError(f"{error.filename}: can't be read: {error.strerror}") from error
    return hash_value([(name, stat.st_size, int(stat.st_mtime)) for name, stat in stats]) if stats else ""
