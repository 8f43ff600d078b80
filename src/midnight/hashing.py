"""Hashes of configurations and files, for provenance and caches."""

import hashlib
import json
from pathlib import Path
from typing import Any


def hash_value(value: Any) -> str:
    """SHA-256 (16 hex digits) of a JSON-like value, independent of key order."""
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_file(path: str | Path, algorithm: str = "sha256") -> str:
    """Full hex digest of a file's bytes, read in 1 MiB blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
