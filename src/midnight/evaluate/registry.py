"""The registries of tasks and models: YAML files checked against dataclasses. Light: the workflow imports it."""

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from midnight.atomic import write_json
from midnight.config.fields import build, choose, did_you_mean, plain, refuse, schema
from midnight.config.load import read_yaml
from midnight.config.pipeline import Evaluation, is_generated
from midnight.errors import ConfigError
from midnight.evaluate.entries import Model, Protocol, Task, Variant
from midnight.home import project_file

OWN = ("run", "init")
FOLDER = "folder"
TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ZOO_NEEDS = ("model_name", "mean", "std")
NEEDED: dict[str, tuple[str, ...]] = {
    "run": ("run",),
    "init": ("run",),
    "dir": ("path",),
    "weights": ("path",),
    "random": ("path",),
    "eva": ZOO_NEEDS,
    "timm": ZOO_NEEDS,
    "colour": (),
}
LOCAL = ("dir", "weights", "random")
"""Sources that are files of a person, not of every user of the registry."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
USUAL_SIZE = 224
"""Input size, px, of weights whose entry says none."""
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def registry_schema(name: str) -> dict[str, Any]:
    """The JSON schema of `config/tasks.yaml` (name "tasks") or `config/models.yaml` ("models")."""
    entry = {"tasks": {"anyOf": [schema(Task), schema(Variant)]}, "models": schema(Model)}[name]
    properties = {name: {"type": "object", "additionalProperties": entry}}
    if name == "tasks":
        properties["presets"] = {"type": "object", "additionalProperties": schema(Protocol)}
    return {
        "$schema": DRAFT,
        "title": name,
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": [name],
    }


def tasks_file() -> Path:
    """The registry of tasks."""
    return project_file("config", "tasks.yaml")


def models_file() -> Path:
    """The registry of models."""
    return project_file("config", "models.yaml")


def _read(path: Path, name: str) -> dict[str, Any]:
    content = read_yaml(path)
    unknown = sorted(set(content) - set(registry_schema(name)["properties"]))
    if unknown:
        raise ConfigError(f"{path}: unknown key {', '.join(map(repr, unknown))}; entries go below {name!r}")
    entries = content.get(name)
    if not isinstance(entries, dict):
        raise ConfigError(f"{path}: missing key {name!r}: a mapping of entries")
    wrong = [entry for entry, value in entries.items() if not isinstance(value, dict)]
    if wrong:
        raise ConfigError(f"{path}: {name}.{wrong[0]}: must be a mapping of keys")
    return entries


def load_tasks(path: Path | None = None) -> dict[str, Task]:
    """All tasks by name.

    Raises:
        ConfigError: the file or an entry is wrong; names the file, the entry and the key.
    """
    path = path or tasks_file()
    entries = _read(path, "tasks")
    tasks = {}
    for name, value in entries.items():
        if "variant_of" not in value:
            tasks[str(name)] = build(Task, {**value, "name": str(name)}, f"{path}: tasks.{name}")
            _check_task(tasks[str(name)], f"{path}: tasks.{name}")
    for name, value in entries.items():
        if "variant_of" in value:
            variant = build(Variant, value, f"{path}: tasks.{name}")
            tasks[str(name)] = _make_variant(str(name), variant, tasks, f"{path}: tasks.{name}")
    return tasks


def _make_variant(name: str, variant: Variant, tasks: Mapping[str, Task], where: str) -> Task:
    """The task whose only images are the perturbed ones, with a column of its own: no average ever has it."""
    base = tasks.get(variant.variant_of)
    if base is None or base.kind != "tile" or base.variant_of:
        raise ConfigError(
            f"{where}.variant_of: {variant.variant_of!r} is no tile task of this file, or a variant itself"
        )
    if not variant.perturb.text:
        raise ConfigError(f"{where}.perturb: changes nothing; give hed_sigma or magnification")
    return dataclasses.replace(
        base,
        name=name,
        label=f"{base.label}, {variant.perturb.text}",
        column=name,
        scored="test",
        dataset=dataclasses.replace(base.dataset, splits={base.scored: base.dataset.splits[base.scored]}),
        variant_of=base.name,
        perturb=variant.perturb,
    )


def _check_task(task: Task, where: str) -> None:
    if task.perturb is not None:
        raise ConfigError(f"{where}.perturb: only a variant of another task is perturbed; add the key 'variant_of'")
    if task.kind == "hest":
        return
    if not task.dataset.class_path:
        raise ConfigError(f"{where}.dataset: missing key 'class_path'")
    missing = sorted({"train", "val", task.scored} - set(task.dataset.splits))
    if missing and task.kind != "folder":
        raise ConfigError(f"{where}.dataset.splits: missing key {', '.join(map(repr, missing))}")
    if task.kind == "slide" and task.max_tiles is None:
        raise ConfigError(f"{where}: missing key 'max_tiles' (tiles per slide)")
    for name, protocol in task.protocols.items():
        if (protocol.max_steps is None) == (protocol.max_epochs is None):
            raise ConfigError(f"{where}.protocols.{name}: exactly one of 'max_steps' and 'max_epochs' must be given")


def load_models(path: Path | None = None) -> dict[str, Model]:
    """All models by name.

    Raises:
        ConfigError: the file or an entry is wrong; names the file, the entry and the key.
    """
    path, models = path or models_file(), {}
    for name, value in _read(path, "models").items():
        where = f"{path}: models.{name}"
        model = _checked(build(Model, {**value, "name": str(name)}, where), where)
        if model.source == "run" and model.run != name:
            raise ConfigError(f"{path}: models.{name}.run: a trained model is called like its run, not {model.run!r}")
        models[str(name)] = model
    return models


def own_models(weights: Mapping[str, Any]) -> dict[str, Model]:
    """The models of `evaluation.weights`, each followed by its random init unless its source is given.

    Raises:
        ConfigError: an entry is wrong; names it and the key.
    """
    models = {}
    for name, value in weights.items():
        where = f"evaluation.weights.{name}"
        if not NAME.fullmatch(name):
            raise ConfigError(f"{where}: a name of a model may have letters, digits and the characters . _ - only")
        given = value if isinstance(value, Mapping) else {"path": value}
        shared = {"label": name, "sizes": [USUAL_SIZE], **given}
        models[name] = _checked(build(Model, {"source": "weights", **shared, "name": name}, where), where)
        if "source" not in given:
            random = {"source": "random", "label": f"{shared['label']}, random init", "name": f"{name}-random"}
            models[f"{name}-random"] = build(Model, {**shared, **random}, where)
    return models


def _checked(model: Model, where: str) -> Model:
    missing = [key for key in NEEDED[model.source] if getattr(model, key) is None]
    if missing:
        raise ConfigError(f"{where}: a model of source {model.source!r} needs the key {missing[0]!r}")
    return model


def select_models(
    names: Collection[str] | None,
    runs: Collection[str],
    path: Path | None = None,
    where: str = "evaluation",
    weights: Mapping[str, Any] | None = None,
) -> dict[str, Model]:
    """The named models and those of `weights`.

    Args:
        names: `evaluation.models`. `all`, or None without `weights`: all real ones of the zoo and of the
            configuration's runs.
        runs: names of the configuration's runs.
        path: the registry; the project's if None.
        where: the section of the configuration whose `models` they are.
        weights: `evaluation.weights`; its names go before the registry's.

    Raises:
        ConfigError: unknown or wrong models, or models of runs that the configuration has not; all at once.
    """
    own = own_models(weights or {})
    path = path or models_file()
    models = load_models(path)
    if names is None:
        names = [] if own else "all"
    if isinstance(names, str):
        default = {name: model for name, model in models.items() if _is_default(model, runs)}
        return choose(names, {"all": default}, f"{where}.models") | own
    models |= own
    refuse("", [line for name in names for line in _model_problems(name, models, runs, f"{where}.models", path)])
    return {name: models[name] for name in (*names, *own)}


def _model_problems(
    name: str, models: Mapping[str, Model], runs: Collection[str], where: str, path: Path
) -> Iterator[str]:
    run = name.removesuffix("-random")
    if name not in models and run in runs:
        source = "run" if name == run else "init"
        yield (
            f"{where}: {name!r} has no entry in {path}; add the line "
            f"{name}: {{source: {source}, run: {run}, label: {name}, sizes: [224]}}, with the px to evaluate at"
        )
    elif name not in models:
        yield f"{where}: no model {name!r}{did_you_mean(name, models)} in {path}; known: {', '.join(models)}"
    elif models[name].source in OWN and models[name].run not in runs:
        of = models[name].run
        hint = did_you_mean(of, runs)
        yield f"{where}: {name!r} is of run {of!r}, not among runs{hint}: {', '.join(runs) or 'none'}"


def _is_default(model: Model, runs: Collection[str]) -> bool:
    return not is_generated(model.data) and model.source not in LOCAL and (model.source not in OWN or model.run in runs)


def configured_tasks(evaluation: Evaluation) -> dict[str, Task]:
    """The tasks of a configuration: `evaluation.tasks` and `evaluation.folders`.

    `tasks: all`, or neither key: the paper's. `tasks: []`: the folders alone, if there are any.

    Raises:
        ConfigError: see `select_tasks`.
    """
    folders = list(evaluation.folders)
    asked = ([] if folders else "all") if evaluation.tasks is None else evaluation.tasks
    if isinstance(asked, str):
        asked = choose(asked, {"all": default_tasks(evaluation.protocol)}, "evaluation.tasks")
    names = [*asked, *(name for name in folders if name not in asked)]
    return select_tasks(names, evaluation.protocol, folders=evaluation.folders)


def default_tasks(protocol: str, path: Path | None = None) -> list[str]:
    """Names of the paper's tasks; under the protocol demo of their stand-ins."""
    wanted = "demo" if protocol == "demo" else "real"
    return [name for name, task in load_tasks(path).items() if task.data == wanted and is_paper(task)]


def folder_tasks(folders: Mapping[str, str], tasks: Mapping[str, Task]) -> dict[str, Task]:
    """The task of each entry of `evaluation.folders`, after the entry `folder` of the registry.

    Args:
        folders: name: folder of labelled images, or CSV.
        tasks: those of the registry.

    Raises:
        ConfigError: a name can't be a file's, or is that of another task or column.
    """
    if not folders:
        return {}
    if (base := tasks.get(FOLDER)) is None or base.kind != "folder":
        raise ConfigError(f"evaluation.folders: the registry of tasks has no entry {FOLDER!r} to make them after")
    taken = {word.lower() for task in tasks.values() for word in (task.name, task.column)}
    made = {}
    for name, path in folders.items():
        if not TASK_NAME.fullmatch(name):
            raise ConfigError(f"evaluation.folders: {name!r} is no name: use letters, digits, '.', '_' and '-'")
        if name.lower() in taken:
            raise ConfigError(f"evaluation.folders: {name!r} is the name of another task or column; choose another")
        taken.add(name.lower())
        dataset = dataclasses.replace(base.dataset, root=str(Path(path).expanduser().absolute()))
        made[name] = dataclasses.replace(base, name=name, label=name, column=name, dataset=dataset)
    return made


def select_tasks(
    names: Collection[str], protocol: str, path: Path | None = None, folders: Mapping[str, str] | None = None
) -> dict[str, Task]:
    """The named tasks with their protocol set.

    A variant's heads are those of the task that it is a variant of, so that task is added before it.

    Args:
        names: of the registry or of `folders`.
        protocol: `evaluation.protocol`.
        path: the registry; the project's if None.
        folders: `evaluation.folders`.

    Raises:
        ConfigError: an unknown task, one that has no such protocol, or a wrong name among `folders`.
    """
    path = path or tasks_file()
    tasks = load_tasks(path)
    tasks |= folder_tasks(folders or {}, tasks)
    chosen, problems = list(names), []
    for name in chosen:
        if name not in tasks:
            hint = did_you_mean(name, tasks)
            problems.append(f"evaluation.tasks: no task {name!r}{hint} in {path}; known: {', '.join(tasks)}")
            continue
        if tasks[name].kind != "hest" and protocol not in tasks[name].protocols:
            known = ", ".join(tasks[name].protocols)
            problems.append(f"evaluation.protocol: task {name!r} has no protocol {protocol!r}; it has: {known}")
    refuse("", problems)
    with_bases = [other for name in chosen for other in (tasks[name].variant_of, name) if other]
    return {name: _with_protocol(tasks[name], protocol) for name in with_bases}


def is_paper(task: Task) -> bool:
    """Whether a task, or its demo stand-in, is in the paper's tables: neither a folder of your own nor a variant."""
    return task.kind != "folder" and not task.variant_of


def _with_protocol(task: Task, protocol: str) -> Task:
    kept = {name: values for name, values in task.protocols.items() if name == protocol}
    return dataclasses.replace(task, protocol=protocol, protocols=kept)


def data_settings(task: Task) -> dict[str, Any]:
    """The part of a task that its embeddings depend on, JSON-like."""
    settings = {"kind": task.kind, "dataset": plain(task.dataset), "max_tiles": task.max_tiles}
    return settings | ({"perturb": plain(task.perturb)} if task.perturb else {})


def find_model(name: str, weights: Mapping[str, Any] | None = None, path: Path | None = None) -> Model:
    """One model, of `evaluation.weights` or else of the registry.

    Raises:
        ConfigError: no such model.
    """
    path = path or models_file()
    models: Mapping[str, Model] = load_models(path) | own_models(weights or {})
    if name not in models:
        raise ConfigError(f"{path}: no model {name!r}; known: {', '.join(models)}")
    return models[name]


def look_at(model: Model) -> list[list[Any]]:
    """Names, sizes and times of the files of a model that a person keeps somewhere: what changes when they do."""
    if model.path is None:
        return []
    path = Path(model.path)
    files = [path] if path.is_file() else sorted([*path.glob("*"), *path.glob("snapshots/*/*")])
    stats = ((file, file.stat()) for file in files if file.is_file())
    return [[file.relative_to(path).as_posix(), status.st_size, status.st_mtime_ns] for file, status in stats]


def write_schemas(folder: Path) -> list[Path]:
    """Write `tasks.schema.json` and `models.schema.json`, for editors and reviewers; returns the paths."""
    paths = [folder / f"{name}.schema.json" for name in ("tasks", "models")]
    for path, name in zip(paths, ("tasks", "models"), strict=True):
        write_json(path, registry_schema(name))
    return paths
