"""Where a number comes from: commit, lock, configuration, inputs, versions."""

import datetime
import functools
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from midnight.hashing import hash_file, hash_value
from midnight.home import project_file

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "timm", "kaiko-eva", "jsonargparse", "scikit-learn", "numpy", "openslide-python", "snakemake")


@functools.cache
def git_commit() -> str:
    """The checkout's commit, with `+` when tracked files differ from it; the version of a package without one."""
    if not (CHECKOUT / "pyproject.toml").is_file():  # the folders above an installed package may be of another's git
        return f"version {_version('midnight')}"
    try:
        command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


@functools.cache
def lock_hash() -> str:
    """Hash of the pinned environment, `envs/requirements.lock`."""
    lock = project_file("envs", "requirements.lock")
    return hash_file(lock)[:16] if lock.exists() else "unknown"


@functools.cache
def versions() -> dict[str, str]:
    """Installed versions of the packages that numbers depend on."""
    return {name: _version(name) for name in PACKAGES}


@functools.cache
def processor_versions() -> dict[str, str]:
    """What computes a sum, and so rounds it: BLAS libraries with their kernels, instruction sets of numpy and torch.

    These are chosen anew on each processor. Where two differ, sums differ in their last bit, and a HEST score in its
    fourth digit (see `midnight.evaluate.hest`).
    """
    import numpy as np
    import scipy.linalg  # noqa: F401 (loads scipy's own BLAS)
    import torch
    from threadpoolctl import threadpool_info

    libraries = {" ".join(_blas_words(found)) for found in threadpool_info() if found["user_api"] == "blas"}
    found = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    return {
        "BLAS": ", ".join(sorted(libraries)) or "unknown",
        "numpy SIMD": " ".join(found) or "baseline",
        "torch CPU": torch.backends.cpu.get_cpu_capability(),
    }


def _blas_words(found: Mapping[str, Any]) -> list[str]:
    """Name, version and kernel of a library that threadpoolctl found, as far as it knows them."""
    words = (found.get("internal_api"), found.get("version"), found.get("architecture"))
    return [str(word) for word in words if word]


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
