"""What a run of the workflow was asked for, kept beside its results: without it nobody knows what is missing."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from midnight.atomic import write_json
from midnight.config import build, plain
from midnight.errors import MidnightError


@dataclass(frozen=True)
class AskedModel:
    """A model to evaluate: its label, its input sizes in px, and the run that makes it, if one does."""

    label: str
    sizes: list[int]
    run: str | None = None


@dataclass(frozen=True)
class Asked:
    """Cohorts, runs, models, poolings and tasks of a configuration, and where MLflow is (None: a local file)."""

    cohorts: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    models: dict[str, AskedModel] = field(default_factory=dict)
    poolings: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    tracking_uri: str | None = None


def write_asked(path: str | Path, asked: Asked) -> None:
    """Write it atomically, also where it is the same: its time says which run was the last."""
    write_json(path, plain(asked))


def read_asked(path: str | Path) -> Asked | None:
    """None where there is no such file, or it is another version's."""
    try:
        return build(Asked, json.loads(Path(path).read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError, MidnightError):
        return None
