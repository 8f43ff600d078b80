"""What makes two runs the same run: everything that the weights depend on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from midnight.config import Recipe, Tiles, plain
from midnight.errors import MidnightError
from midnight.hashing import hash_file, hash_value
from midnight.ssl.export import CARD, HEADS, WEIGHTS
from midnight.tiles.shards.tileset import FOR_DAMAGED
from midnight.tissue.index import index_identity

BOOKKEEPING = (
    "activation_checkpointing",
    "checkpoint_every",
    "keep_checkpoints",
    "keep_every",
    "log_every",
    "probe_every",
    "probe_tiles",
    "workers",
    "stall_seconds",
    "max_nonfinite",
    "sharding",
)


def resolved_config(
    recipe: Recipe, cohorts: Mapping[str, tuple[Path, float]], init_from: Path | None, data: str
) -> dict[str, Any]:
    """The run's configuration with every input by its hash: the content of `config.yaml`.

    Raises:
        MidnightError: an index of slides or the parent's weights can't be read.
    """
    return {
        "recipe": plain(recipe),
        "cohorts": {
            name: {"index": str(index), "sha256": index_identity(index), "weight": weight}
            for name, (index, weight) in cohorts.items()
        },
        "init_from": parent_hashes(init_from) if init_from else None,
        "data": data,
    }


def parent_hashes(folder: Path) -> dict[str, str]:
    """The files that a run started from, by name with their hash (heads where the parent left some)."""
    names = [WEIGHTS, *([HEADS] if (folder / HEADS).exists() else [])]
    if not (folder / CARD).exists():
        raise MidnightError(f"{folder}: no {CARD}: train this run first, or set backbone.init to something else")
    return {name: _hash(folder / name) for name in names}


def run_key(config: Mapping[str, Any]) -> str:
    """Hash of what the weights depend on: paths and bookkeeping (logging, checkpoints, workers) left out.

    A run may go on with another number of processes that share the same tiles: only their product counts.
    """
    recipe = dict(config["recipe"])
    recipe["training"] = {name: value for name, value in recipe["training"].items() if name not in BOOKKEEPING}
    recipe["training"]["tiles_per_step"] = recipe["training"].pop("gpus") * recipe["training"].pop("batch_size")
    usual = {name: getattr(Tiles(), name) for name in FOR_DAMAGED}
    recipe["tiles"] = {
        name: value
        for name, value in recipe["tiles"].items()
        if name != "patience" and (name not in usual or value != usual[name])
    }
    recipe.pop("name")
    cohorts = {name: [cohort["sha256"], cohort["weight"]] for name, cohort in config["cohorts"].items()}
    return hash_value({"recipe": recipe, "cohorts": cohorts, "init_from": config["init_from"]})


def _hash(path: Path) -> str:
    try:
        return hash_file(path)[:16]
    except OSError as error:
        raise MidnightError(f"{path}: can't be read: {error.strerror}") from error
