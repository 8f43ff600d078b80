"""What is checked before anything runs: a configuration and its recipes, models, tasks and files, all at once."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from midnight.config import Config, Evaluation, Recipe, load_runs
from midnight.config.fields import refuse
from midnight.config.load import names_of, read_config
from midnight.config.pipeline import is_generated
from midnight.errors import ConfigError, MidnightError
from midnight.evaluate.entries import Model, Task
from midnight.evaluate.registry import configured_tasks, select_models
from midnight.evaluate.schedule import protocol_problems
from midnight.paths import Layout
from midnight.ssl.checkpoint.init_file import init_file, recorded

Value = TypeVar("Value")


@dataclass(frozen=True)
class Start:
    """A configuration with everything that it names: recipes by run, models and tasks by name."""

    config: Config
    recipes: dict[str, Recipe]
    models: dict[str, Model]
    feature_models: dict[str, Model]
    tasks: dict[str, Task]


def read_start(value: Mapping[str, Any], where: str, files: bool = True) -> Start:
    """Check a configuration and all that it names.

    Args:
        value: the configuration.
        where: its file, for messages.
        files: also look whether the files and folders are there.

    Raises:
        ConfigError: what is wrong, a line each.
    """
    config, lines = read_config(value)
    evaluation, runs = config.evaluation, names_of(value, "runs")
    recipes, wrong = load_runs(config)
    lines += wrong
    lines += [
        f"runs.{name}: tiles.predrawn: is for slides; tile_folders are tiles already, so set it to null"
        for name, recipe in recipes.items()
        if config.runs[name].tile_folders and recipe.tiles.predrawn
    ]
    models = _tried(lines, lambda: select_models(evaluation.models, runs, weights=evaluation.weights))
    features = _tried(lines, lambda: _feature_models(config, runs))
    tasks = _tried(lines, lambda: configured_tasks(evaluation))
    lines += protocol_problems(tasks.values())
    lines += [*file_problems(config, recipes), *_data_root(evaluation, tasks)] if files else []
    refuse(where, lines)
    return Start(config, recipes, models, features, tasks)


def summary(start: Start) -> str:
    """What a configuration asks for, in a line."""
    config = start.config
    data = {"cohorts": [*config.cohorts]} | ({"tile_folders": [*config.tile_folders]} if config.tile_folders else {})
    parts = data | {"runs": [*config.runs], "models": [*start.models], "tasks": [*start.tasks]}
    return "OK: " + "; ".join(f"{name} {', '.join(values) or 'none'}" for name, values in parts.items())


def _feature_models(config: Config, runs: Collection[str]) -> dict[str, Model]:
    names, weights = config.features.models, config.evaluation.weights
    named = select_models(names, runs, where="features", weights=weights)
    return {name: named[name] for name in names}


def _tried(lines: list[str], make: Callable[[], dict[str, Value]]) -> dict[str, Value]:
    try:
        return make()
    except ConfigError as error:
        lines += error.lines
        return {}


def file_problems(config: Config, recipes: Mapping[str, Recipe]) -> list[str]:
    """Files and folders that the configuration names and that are not there; a line each."""
    return [*_cohort_files(config), *_evaluation_files(config), *_init_files(config, recipes)]


def _cohort_files(config: Config) -> Iterator[str]:
    layout = Layout(config.results_dir, config.data_dir)
    for name, cohort in config.cohorts.items():
        pinned = Path(layout.manifest(name)).is_file()  # then what was made of slides that are away stays
        keys = {"exclude": cohort.exclude, "manifest": cohort.manifest}
        keys |= {"path": cohort.path} if cohort.source == "local" and not pinned else {}
        for key, path in keys.items():
            yield from _absent(f"cohorts.{name}.{key}", path)
    for name, path in config.tile_folders.items():
        yield from _absent(f"tile_folders.{name}", path)
    if config.gdc.token_file:
        yield from _absent("gdc.token_file", config.gdc.token_file)


def _evaluation_files(config: Config) -> Iterator[str]:
    evaluation = config.evaluation
    for name, path in evaluation.folders.items():
        yield from _absent(f"evaluation.folders.{name}", path)
    for name, value in evaluation.weights.items():
        file = value.get("path") if isinstance(value, Mapping) else value
        yield from _absent(f"evaluation.weights.{name}", file)
    if evaluation.weights_dir:
        yield from _absent("evaluation.weights_dir", evaluation.weights_dir)


def _data_root(evaluation: Evaluation, tasks: Mapping[str, Task]) -> Iterator[str]:
    """Of the folder of data sets: where nothing may be downloaded, it must be there."""
    root = Path(evaluation.data_root).expanduser()
    registered = [name for name, task in tasks.items() if not (task.is_own or is_generated(task.data))]
    if root.exists() and not root.is_dir():
        yield f"evaluation.data_root: {root} is a file; name the folder of the data sets"
    elif registered and not evaluation.download and not root.exists():
        names = f"{', '.join(registered[:3])}{', …' if len(registered) > 3 else ''}"
        yield f"evaluation.data_root: {root} is not there and download is off, but {names} need their data sets in it"


def _init_files(config: Config, recipes: Mapping[str, Recipe]) -> Iterator[str]:
    layout = Layout(config.results_dir, config.data_dir)
    for name, recipe in recipes.items():
        init = recipe.backbone.init
        kind, _, parent = init.partition(":")
        if kind == "run" and parent not in config.runs:
            yield f"runs.{name}: backbone.init: run:{parent} is not among runs; add it there"
        elif (path := init_file(init)) and not recorded(Path(layout.model(name, "config.yaml"))):
            yield from (f"runs.{name}: {line}" for line in _init_problems(path, recipe))


def _init_problems(path: Path, recipe: Recipe) -> Iterator[str]:
    from midnight.ssl.model.weights import misfit  # imports torch: only where a new run starts from a file

    try:
        if problem := misfit(path, recipe.backbone, recipe.crops.global_size):
            yield f"backbone.init: {path} does not fit {recipe.backbone.arch}: {problem}"
    except MidnightError as error:
        yield str(error)


def _absent(key: str, path: str | None) -> Iterator[str]:
    if path and not Path(path).expanduser().exists():
        yield f"{key}: {path} is not there (looked for from {Path.cwd()})"
