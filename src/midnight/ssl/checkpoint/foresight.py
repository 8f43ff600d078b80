"""Says whether training goes on or begins anew, and why, before it happens. Light: the workflow imports it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from midnight.config import Recipe, plain
from midnight.config.load import read_yaml
from midnight.errors import MidnightError
from midnight.ssl.checkpoint.aside import CHECKPOINTS, kept_step, last_step
from midnight.ssl.checkpoint.finished import finished_step
from midnight.ssl.checkpoint.init_file import RECORD, record_of, recorded
from midnight.ssl.checkpoint.run_key import decisive, differences, run_key
from midnight.ssl.checkpoint.segments import in_the_way, with_segments

SHOWN = 6


def foresee(output: Path, recipe: Recipe, config: Mapping[str, Any] | None = None) -> str:
    """One line for a run that has progress of another configuration, "" for any other.

    Args:
        output: the run's folder.
        recipe: as it is now.
        config: the whole of the new `config.yaml`, where it is known; else the slides count as unchanged.

    Raises:
        MidnightError: the run's config.yaml, or the file of `backbone.init`, can't be read.
    """
    path = output / "config.yaml"
    old = read_yaml(path) if path.is_file() else {}
    key = str(old.get("hash", "unknown"))
    progress = _progress(output, key)
    if not old or not progress:
        return ""
    new = _with_recipe(old, recipe, path) if config is None else dict(config)
    try:
        new = with_segments(new, output)
        changed = differences(decisive(old), decisive(new))
    except (KeyError, TypeError, AttributeError) as error:
        raise MidnightError(f"{path}: is no configuration of a run ({error!r}); move {output} away") from error
    if not changed or key == run_key(new):
        return ""
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return (
        f"run {output.name}: changed since it was trained: {'; '.join(changed[:SHOWN])}{more}. "
        f"{_next(output, run_key(new), recipe.training.iterations, changed)}; {progress}"
    )


def _progress(output: Path, key: str) -> str:
    """What is there of the configuration so far, and where it is kept."""
    if step := last_step(output / CHECKPOINTS):
        kept = f"{output / CHECKPOINTS}.{key}"
        return f"its {step:,} steps so far are kept in {kept} and go on when the old values are back"
    if finished_step(output, key):
        return f"its finished model is kept in {output}/finished.{key} and put back when the old values are back"
    return ""


def _next(output: Path, key: str, iterations: int, changed: list[str]) -> str:
    if finished_step(output, key) == iterations:
        return "The finished model of these values is put back, without training"
    if again := kept_step(output / CHECKPOINTS, key):
        return f"Training goes on at step {again:,}, which this configuration had reached"
    if last_step(output / CHECKPOINTS) and not in_the_way(changed):
        keys = " ".join(f"{line.partition(' ')[0]}=…" for line in changed)
        return f"Training begins anew at step 0 (to go on instead: midnight train {output.name} --continue-with {keys})"
    return "Training begins anew at step 0"


def _with_recipe(old: Mapping[str, Any], recipe: Recipe, path: Path) -> dict[str, Any]:
    record = record_of(recipe.backbone.init, recorded(path))
    rest = {name: value for name, value in old.items() if name != RECORD}
    return rest | {"recipe": plain(recipe)} | ({RECORD: record} if record else {})
