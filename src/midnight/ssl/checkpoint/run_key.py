"""What makes two runs the same run: everything that the weights depend on.

Light: the workflow imports it at its start.
"""

from collections.abc import Mapping
from typing import Any

from midnight.config import Tiles
from midnight.hashing import hash_value
from midnight.ssl.checkpoint.init_file import RECORD
from midnight.tiles.predrawn.tileset import FOR_DAMAGED

SEGMENTS = "segments"
"""In a run's configuration: what was done before with other values, see `midnight.ssl.checkpoint.segments`."""
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


def run_key(config: Mapping[str, Any]) -> str:
    """Hash of what the weights depend on: paths and bookkeeping (logging, checkpoints, workers) left out.

    A run may go on with another number of processes that share the same tiles: only their product counts. It may also
    become longer, where its schedules have a length of their own.
    """
    before = config.get(SEGMENTS, [])[-1:]  # whose key has those before it
    return hash_value(decisive(config) | ({SEGMENTS: [[one["until"], one["key"]] for one in before]} if before else {}))


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `config.yaml` that the weights depend on."""
    cohorts = {name: [cohort["sha256"], cohort["weight"]] for name, cohort in config["cohorts"].items()}
    recipe = decisive_recipe(config["recipe"], config.get(RECORD))
    return {"recipe": recipe, "cohorts": cohorts, "init_from": config["init_from"]}


def decisive_recipe(whole: Mapping[str, Any], init: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The part of a recipe, as plain values, that the weights depend on.

    Args:
        whole: the recipe.
        init: the record of the file that `backbone.init` names; its content counts, not its path.
    """
    recipe = dict(whole)
    if init:
        recipe["backbone"] = {**whole["backbone"], "init": f"sha256:{init['sha256']}"}
    training = {name: value for name, value in whole["training"].items() if name not in BOOKKEEPING}
    training["tiles_per_step"] = training.pop("gpus") * training.pop("batch_size")
    if extensible(training):
        training.pop("iterations")
    usual = {name: getattr(Tiles(), name) for name in FOR_DAMAGED}
    tiles = {
        name: value
        for name, value in whole["tiles"].items()
        if name != "patience" and (name not in usual or value != usual[name])
    }
    recipe.pop("name")
    return recipe | {"training": training, "tiles": tiles, "loss": _loss(whole["loss"])}


def _loss(whole: Mapping[str, Any]) -> dict[str, Any]:
    """Without what has no effect; so a run of before there was a choice has the same key."""
    softmax = whole.get("centering", "sinkhorn") != "sinkhorn"
    unused = ("sinkhorn_iterations",) if softmax else ("centering", "center_momentum")
    return {name: value for name, value in whole.items() if name not in unused}


def extensible(training: Mapping[str, Any]) -> bool:
    """Whether more `iterations` would go on to the bit: by schedules of fixed length, from a whole optimizer step."""
    return training["schedule_iterations"] is not None and training["iterations"] % training["accumulation"] == 0


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """`optimizer.base_lr 0.001 → 0.0005` for each value that differs between two of what `decisive` gives."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*old, *(name for name in new if name not in old)]
        parts = [differences(old.get(name), new.get(name), f"{where}.{name}".lstrip(".")) for name in names]
        return [line for part in parts for line in part]
    return [] if old == new else [f"{where.removeprefix('recipe.')} {_short(old)} → {_short(new)}"]


def _short(value: Any) -> str:
    return "nothing" if value is None else str(value)[:60]
