"""Where a number comes from: commit, lock, configuration, inputs, versions."""

import datetime
import functools
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from midnight.hashing import hash_file, hash_value

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "timm", "kaiko-eva", "jsonargparse", "scikit-learn", "numpy", "openslide-python", "snakemake")


@functools.cache
def git_commit() -> str:
    """The repository's commit, with `+` when tracked files differ from it; "unknown" outside git."""
    try:
        command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


@functools.cache
def lock_hash() -> str:
    """Hash of the pinned environment, `envs/requirements.lock`."""
    lock = REPOSITORY / "envs" / "requirements.lock"
    return hash_file(lock)[:16] if lock.exists() else "unknown"


@functools.cache
def versions() -> dict[str, str]:
    """Installed versions of the packages that numbers depend on."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def provenance(config: Any, inputs: Mapping[str, str | Path] | None = None) -> dict[str, Any]:
    """The provenance block that every record carries.

    Args:
        config: the JSON-like configuration that the step read.
        inputs: files that the step read, by role; each is hashed.
    """
    return {
        "commit": git_commit(),
        "lock": lock_hash(),
        "config": hash_value(config),
        "inputs": {role: hash_file(path)[:16] for role, path in (inputs or {}).items()},
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
