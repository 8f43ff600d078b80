"""Hashes of models and data sets, for caches and provenance."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from midnight.errors import MidnightError
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
    digest = hashlib.sha256()
    count = 0
    for name, size in sorted(scan(root).items()):
        if "/" not in name and is_packed(Path(name)):  # an archive that was unpacked here may stay or go
            continue
        digest.update(f"{name}\0{size}\0".encode())
        with (root / name).open("rb") as file:
            digest.update(file.read(EDGE))
            if size > EDGE:
                file.seek(max(EDGE, size - EDGE))
                digest.update(file.read(EDGE))
        count += 1
    if not count:
        raise MidnightError(f"{root}: the folder of data is empty")
    return digest.hexdigest()[:16]
