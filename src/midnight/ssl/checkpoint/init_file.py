"""The weights file that `backbone.init` names: known by its content, so that a run notices when it is replaced."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from midnight.config.load import read_yaml
from midnight.errors import MidnightError
from midnight.hashing import hash_file

RECORD = "init_file"
"""Its key in a run's config.yaml."""


def init_file(init: str) -> Path | None:
    """The file that `backbone.init` names; None where it names something else."""
    named = init in ("random", "pretrained") or init.startswith("run:")
    return None if named else Path(init).expanduser()


def record_of(init: str, known: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Path, size (bytes), time (ns) and SHA-256 of the file; None where `backbone.init` names none.

    Args:
        init: the recipe's `backbone.init`.
        known: an earlier record. Where size and time are the same, its hash is taken and no byte is read. Of a file
            that is away since, it is the answer: what was trained from it stays.

    Raises:
        MidnightError: the file can't be read.
    """
    path = init_file(init)
    if path is None:
        return None
    try:
        stat = path.stat()
        found: dict[str, Any] = {"path": init, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        same = known is not None and all(known.get(name) == found[name] for name in ("bytes", "mtime_ns"))
        return {**found, "sha256": known["sha256"] if known and same else hash_file(path)}
    except OSError as error:
        if known and known.get("path") == init:
            return dict(known)
        raise MidnightError(f"backbone.init: {path}: can't be read: {error.strerror}") from error


def recorded(config: Path) -> Mapping[str, Any] | None:
    """The record in a run's `config.yaml`; None where there is none.

    Raises:
        MidnightError: the file can't be read.
    """
    found = read_yaml(config).get(RECORD) if config.is_file() else None
    return found if isinstance(found, Mapping) and "sha256" in found else None
