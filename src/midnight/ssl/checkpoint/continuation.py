"""Lets a run go on from its newest checkpoint with other values: `midnight train RUN --continue-with KEY=VALUE`.

Nothing is trained here, and nothing of the run so far is changed: a checkpoint of the new configuration is laid beside,
where training finds it by its key.
"""

import contextlib
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from midnight.atomic import write_json, write_text
from midnight.config import Config, Recipe, load_recipe, merge, plain, read_yaml
from midnight.config.fields import did_you_mean
from midnight.errors import ConfigError, MidnightError
from midnight.paths import Layout
from midnight.ssl.checkpoint.aside import CHECKPOINTS, kept_step
from midnight.ssl.checkpoint.checkpoints import Checkpoints, adopt
from midnight.ssl.checkpoint.run_key import SEGMENTS, decisive, differences, run_key
from midnight.ssl.checkpoint.segments import FILE, in_the_way, read_segments, told
from midnight.ssl.monitor.metrics import METRICS

COUNTED = {"training.gpus": "training.tiles_per_step", "training.batch_size": "training.tiles_per_step"}
"""Keys that count by another name."""


def prepare(config: Config, run: str, values: Mapping[str, Any], where: str) -> str:
    """Let a run of a configuration go on with `values`; "" if there are none.

    Args:
        config: the configuration.
        run: its name there.
        values: by key such as `optimizer.base_lr`; the run's override must have them too, for the workflow reads that.
        where: the configuration's file.

    Raises:
        MidnightError: see `continue_with`; or there is no such run, or its override has other values.
    """
    if run not in config.runs:
        raise ConfigError(f"{where}: no run {run!r}{did_you_mean(run, config.runs)}; known: {', '.join(config.runs)}")
    if not values:
        return ""
    own = config.runs[run]
    change = _nested(values)
    recipe = load_recipe(own.recipe, own.override)
    if load_recipe(own.recipe, merge(own.override, change)) != recipe:
        text = " ".join(yaml.safe_dump(change, default_flow_style=True, width=10_000).split())
        raise ConfigError(f"{where}: write {text} into runs.{run}.override first: the workflow goes on with it too")
    return continue_with(Path(Layout(config.results_dir, config.data_dir).model(run)), recipe, values)


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by `optimizer.base_lr` as an override has them."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        change: dict[str, Any] = {last: value}
        for group in reversed(groups):
            change = {group: change}
        out = merge(out, change)
    return out


def continue_with(output: Path, recipe: Recipe, asked: Collection[str]) -> str:
    """Prepare a run to go on with the values of `recipe`; says in a line from where.

    Args:
        output: the run's folder, with checkpoints of other values.
        recipe: as the configuration has it now.
        asked: the keys that shall be other ones, such as `optimizer.base_lr`; no other may differ.

    Raises:
        ConfigError: other keys differ too, or none, or one with which no checkpoint can go on.
        MidnightError: there is no checkpoint, or none is whole; a file can't be read or written.
    """
    path = output / "config.yaml"
    if not path.is_file():
        raise MidnightError(
            f"{output}: has no config.yaml, so nothing was trained there yet; run it without the option"
        )
    old = read_yaml(path)
    rest = {name: value for name, value in old.items() if name not in (SEGMENTS, "hash")}
    new = rest | {"recipe": plain(recipe)}
    changed = differences(decisive(old), decisive(new))
    _check(output, changed, asked)
    checkpoint = Checkpoints(output / CHECKPOINTS, str(old.get("hash")), keep=1).newest_whole()
    if checkpoint is None:
        raise MidnightError(f"{output / CHECKPOINTS}: no whole checkpoint of {path} to go on from")
    step = int(checkpoint.name.removeprefix("step_"))
    if step % recipe.training.accumulation:
        raise ConfigError(f"training.accumulation: {output.name} is at step {step:,}, which is no multiple of it")
    if step >= recipe.training.iterations:
        raise ConfigError(f"{output.name}: has all of its {step:,} steps: raise training.iterations too, and name it")
    segments = [*old.get(SEGMENTS, []), {"until": step, "key": old["hash"], "changed": changed}]
    _lay_beside(output, checkpoint, new, segments)
    return f"{output.name} goes on {told(segments)[-1]}"


def _check(output: Path, changed: list[str], asked: Collection[str]) -> None:
    if not changed:
        raise ConfigError(f"{output.name}: has these values already; run it without --continue-with")
    if wrong := in_the_way(changed):
        raise ConfigError(
            f"{output.name}: can't go on with {'; '.join(wrong)}: begin a new run, "
            f"which backbone.init: run:{output.name} may start from this one's teacher"
        )
    meant = {COUNTED.get(name, name) for name in asked}
    if others := [line for line in changed if not any(_is(line, name) for name in meant)]:
        raise ConfigError(f"{output.name}: also changed: {'; '.join(others)}; name it too, or take it back")


def _is(line: str, name: str) -> bool:
    return line.startswith((f"{name} ", f"{name}."))


def _lay_beside(output: Path, checkpoint: Path, config: Mapping[str, Any], segments: list[dict[str, Any]]) -> None:
    """A checkpoint folder of the new key, with curves and configuration, and the record that leads to it."""
    key = run_key({**config, SEGMENTS: segments})
    if not kept_step(output / CHECKPOINTS, key):  # else it went on so before, and goes on where that came to
        target = output / f"{CHECKPOINTS}.{key}"
        writing = output / f".{CHECKPOINTS}-{key}"
        shutil.rmtree(writing, ignore_errors=True)
        try:
            adopt(checkpoint, writing / checkpoint.name, key)
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(output / METRICS, writing / METRICS)
            text = yaml.safe_dump({**config, SEGMENTS: segments, "hash": key}, sort_keys=False)
            write_text(writing / "config.yaml", text)
            writing.replace(target)
        except OSError as error:
            raise MidnightError(f"{target}: can't be written: {error.strerror}; free space, run it again") from error
    write_json(output / FILE, read_segments(output) | {run_key(config): segments})
