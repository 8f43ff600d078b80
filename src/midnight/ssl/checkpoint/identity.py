"""A run's configuration with every input by its hash; `run_key` says which part of it is decisive."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from midnight.config import Recipe, plain
from midnight.errors import MidnightError
from midnight.hashing import hash_file
from midnight.ssl.checkpoint.init_file import RECORD, record_of, recorded
from midnight.ssl.checkpoint.segments import with_segments
from midnight.ssl.exports.model_folder import CARD, HEADS, WEIGHTS
from midnight.tissue.index import index_identity


def resolved_config(
    recipe: Recipe,
    cohorts: Mapping[str, tuple[Path, float]],
    init_from: Path | None,
    data: str,
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The run's configuration with every input by its hash: the content of `config.yaml`.

    Args:
        recipe: the run's.
        cohorts: index of slides and weight by cohort.
        init_from: folder of the run that `backbone.init: run:NAME` names.
        data: `real` or `demo`.
        known: what was recorded of the file of `backbone.init`, see `record_of`.

    Raises:
        MidnightError: an index of slides, the parent's weights or the file of `backbone.init` can't be read.
    """
    record = record_of(recipe.backbone.init, known)
    return {
        "recipe": plain(recipe),
        "cohorts": {
            name: {"index": str(index), "sha256": index_identity(index), "weight": weight}
            for name, (index, weight) in cohorts.items()
        },
        "init_from": parent_hashes(init_from) if init_from else None,
        "data": data,
        **({RECORD: record} if record else {}),
    }


def run_config(
    output: Path, recipe: Recipe, cohorts: Mapping[str, tuple[Path, float]], init_from: Path | None, data: str
) -> dict[str, Any]:
    """`resolved_config` with what the run's folder has on record: an earlier hash of the file, segments before.

    Raises:
        MidnightError: see `resolved_config`; or a record can't be read.
    """
    known = recorded(output / "config.yaml")
    return with_segments(resolved_config(recipe, cohorts, init_from, data, known), output)


def parent_hashes(folder: Path) -> dict[str, str]:
    """The files that a run started from, by name with their hash (heads where the parent left some)."""
    names = [WEIGHTS, *([HEADS] if (folder / HEADS).exists() else [])]
    if not (folder / CARD).exists():
        raise MidnightError(f"{folder}: no {CARD}: train this run first, or set backbone.init to something else")
    return {name: _hash(folder / name) for name in names}


def _hash(path: Path) -> str:
    try:
        return hash_file(path)[:16]
    except OSError as error:
        raise MidnightError(f"{path}: can't be read: {error.strerror}") from error
