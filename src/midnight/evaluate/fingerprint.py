"""Hashes of models and data sets, for caches and provenance."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from midnight.errors import MidnightError
from midnight.evaluate.labelled import read_labelled
from midnight.evaluate.prepare.files import is_packed, scan
from midnight.hashing import hash_file, hash_value

EDGE = 65_536
WEIGHTS, CARD = "teacher.safetensors", "model.json"
CARD_KEYS = ("arch", "kwargs", "embed_dim", "registers", "mean", "std")


def hash_folder(folder: Path) -> str:
    """Hash of an exported model: its weights and the part of its card that features depend on.

    Raises:
        MidnightError: a file is missing or the card is not JSON.
    """
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return hash_value([hash_file(folder / WEIGHTS), {key: card.get(key) for key in CARD_KEYS}])
    except (OSError, ValueError, AttributeError) as error:
        raise MidnightError(f"{folder}: no usable {CARD} and {WEIGHTS}: {error}") from error


def hash_state(state: Mapping[str, Tensor]) -> str:
    """Hash of a state dict: names, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.flatten().view(-1).float().numpy().tobytes())
    return digest.hexdigest()[:16]


def hash_data(root: Path) -> str:
    """Hash of a data set's files: relative names, sizes, and the first and last 64 KiB of each.

    Whole files up to 128 KiB, so small images are covered byte for byte; slides and big HDF5 files are not, since
    reading hundreds of gigabytes to name a data set would take longer than the evaluation.

    Raises:
        MidnightError: there is no such folder, or it has no files.
    """
    if not root.is_dir():
        raise MidnightError(f"{root}: no such folder of data")
    # an archive that was unpacked here may stay or go
    names = [name for name in sorted(scan(root)) if "/" in name or not is_packed(Path(name))]
    if not names:
        raise MidnightError(f"{root}: the folder of data is empty")
    return _hash_files((name, root / name) for name in names)


def _hash_files(files: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in files:
        size = path.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(EDGE))
            if size > EDGE:
                file.seek(max(EDGE, size - EDGE))
                digest.update(file.read(EDGE))
    return digest.hexdigest()[:16]


def hash_task_data(kind: str, root: Path) -> str:
    """Hash of the data of a task of this kind: `hash_data`, or for labelled images `hash_labelled`."""
    return hash_labelled(root) if kind == "folder" else hash_data(root)


def hash_labelled(root: Path) -> str:
    """Hash of a folder's or CSV's labelled images; of a folder its `hash_data` where that says all.

    That is a folder of class folders without splits, groups and further folders. In all others the hash changes, too,
    when images are understood otherwise.

    Raises:
        MidnightError: there are no images, or the folder or CSV is wrong.
    """
    try:
        found = read_labelled(root)
    except ValueError as error:
        raise MidnightError(f"{root}: {error}") from error
    samples = found.samples
    if root.is_dir() and not found.grouped_by and all(s.name.count("/") == 1 for s in samples):
        return hash_data(root)
    content = hash_data(root) if root.is_dir() else _hash_files((s.name, s.path) for s in samples)
    return hash_value([content, [(s.name, s.label, s.split, s.group) for s in samples]])
