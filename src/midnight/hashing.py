"""Hashes of configurations and files, for provenance and caches."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def hash_value(value: Any) -> str:
    """SHA-256 (16 hex digits) of a JSON-like value, independent of key order."""
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def canonical(value: Any) -> Any:
    """The same value with the keys of every mapping in alphabetical order, for what compares them in theirs."""
    if isinstance(value, Mapping):
        return {key: canonical(value[key]) for key in sorted(value, key=str)}
    return [canonical(item) for item in value] if isinstance(value, list | tuple) else value


def hash_file(path: str | Path, algorithm: str = "sha256") -> str:
    """Full hex digest of a file's bytes, read in 1 MiB blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
