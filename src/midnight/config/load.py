"""Reading configuration files: YAML in, checked dataclasses out."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from midnight.config.checks import recipe_problems
from midnight.config.fields import build, did_you_mean, numbers, problems, refuse, validate
from midnight.config.pipeline import Config, Features
from midnight.config.recipe import Crops, Recipe
from midnight.config.repair import without_wrong_keys
from midnight.errors import ConfigError
from midnight.home import folders, project_file

READS = (("backbone", "crops"), ("training", "optimizer"))
"""Sections of a recipe whose values are read by the checks of another."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping (empty counts as {}).

    Raises:
        ConfigError: the file is missing, is not YAML, or holds something else.
    """
    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: must be a mapping of keys, found {type(value).__name__}")
    return value


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `change` laid over it, mapping by mapping; lists and scalars are replaced."""
    out = copy.deepcopy(dict(base))
    for name, value in change.items():
        both = isinstance(value, Mapping) and isinstance(out.get(name), Mapping)
        out[name] = merge(out[name], value) if both else copy.deepcopy(value)
    return out


def load_config(value: Mapping[str, Any], where: str) -> Config:
    """A checked pipeline configuration from the mapping that Snakemake read from the file `where`.

    Raises:
        ConfigError: keys are unknown, missing, empty or out of range, or name something undefined; all of them at once.
    """
    config, lines = read_config(value)
    refuse(where, lines)
    return config


def read_config(value: Mapping[str, Any]) -> tuple[Config, list[str]]:
    """A configuration without its wrong keys, so that what it names can be checked too; and all that is wrong."""
    value = numbers(Config, value)
    sound, _ = without_wrong_keys(Config, value)
    config = build(Config, sound, "")
    lines = [*problems(Config, value), *_pathless(value), *_undefined(config, value)]
    return config, lines + features_problems(config.features)


def names_of(value: Mapping[str, Any], section: str) -> list[str]:
    """Names of the entries of a section, of wrong ones too."""
    entries = value.get(section)
    return list(entries) if isinstance(entries, Mapping) else []


def _undefined(config: Config, value: Mapping[str, Any]) -> Iterator[str]:
    """Runs whose data are not there."""
    known = {"cohorts": names_of(value, "cohorts"), "tile_folders": names_of(value, "tile_folders")}
    for name, run in config.runs.items():
        for section, word in (("cohorts", "cohort"), ("tile_folders", "entry")):
            for data in getattr(run, section):
                if data not in known[section]:
                    hint = did_you_mean(data, known[section])
                    yield f"runs.{name}.{section}: no {word} {data!r}{hint}; known: {known[section]}"
        if run.cohorts and run.tile_folders:
            yield f"runs.{name}: has cohorts and tile_folders; a run trains on slides or on folders of tiles"
        if not run.cohorts and not run.tile_folders:
            yield f"runs.{name}.cohorts: is empty; name a cohort and its share, such as {{tcga: 1}}"


def _pathless(value: Mapping[str, Any]) -> Iterator[str]:
    """Local cohorts without slides, also where other keys are wrong: what has to be filled in is said at once."""
    cohorts = value.get("cohorts")
    for name, cohort in cohorts.items() if isinstance(cohorts, Mapping) else ():
        if isinstance(cohort, Mapping) and cohort.get("source") == "local" and not cohort.get("path"):
            yield f"cohorts.{name}.path: a local cohort needs the folder (or CSV) of its slides; fill it in"


def load_runs(config: Config, folder: Path | None = None) -> tuple[dict[str, Recipe], list[str]]:
    """The recipe of each run with its overrides, and what is wrong with those that have none; a line each."""
    recipes: dict[str, Recipe] = {}
    lines = []
    for name, run in config.runs.items():
        try:
            recipes[name] = load_recipe(run.recipe, run.override, folder)
        except ConfigError as error:
            lines += [f"runs.{name}: {line}" for line in error.lines]
    return recipes, lines


def check_features(features: Features) -> None:
    """Check what the schema of features can't.

    Raises:
        ConfigError: see `features_problems`.
    """
    refuse("", features_problems(features))


def features_problems(features: Features) -> list[str]:
    """A line if tiles would not move on."""
    if features.overlap < features.size:
        return []
    return [f"features.overlap: {features.overlap} px of tiles of {features.size} px; it must be less than the size"]


def recipe_names(folder: Path | None = None) -> list[str]:
    """Names of the recipes of a folder; if None of all the project's."""
    places = [folder] if folder else [place / "config" / "recipes" for place in folders()]
    return sorted({path.stem for place in places for path in place.glob("*.yaml")})


def recipe_file(name: str, folder: Path | None = None) -> Path:
    """The file of a recipe: of a folder, or if None of the project (see `midnight.home`). It may not be there."""
    return folder / f"{name}.yaml" if folder else project_file("config", "recipes", f"{name}.yaml")


def load_recipe(name: str, override: Mapping[str, Any] | None = None, folder: Path | None = None) -> Recipe:
    """A recipe with its bases resolved and `override` laid over it.

    A recipe's `base:` names another recipe whose values it inherits.

    Raises:
        ConfigError: no such recipe, a cycle of bases, or a wrong key.
    """
    value = _over(_inherit(name, folder, ()), override or {})
    where = str(recipe_file(name, folder)) + (" with override" if override else "")
    recipe, lines = _read_recipe(value)
    refuse(where, lines)
    return dataclasses.replace(recipe, name=name)


def _read_recipe(value: Mapping[str, Any]) -> tuple[Recipe, list[str]]:
    """A recipe without the keys that are wrong, and all that is wrong: also how the other keys go together."""
    value = numbers(Recipe, value)
    sound, left_out = without_wrong_keys(Recipe, value)
    recipe = build(Recipe, sound, "")
    unknown = {key.partition(".")[0] for key in left_out}
    unknown |= {section for one, section in READS if one in unknown}
    together = (line for line in recipe_problems(recipe) if line.partition(".")[0] not in unknown)
    return recipe, [*problems(Recipe, value), *together]


def _inherit(name: str, folder: Path | None, seen: tuple[str, ...]) -> dict[str, Any]:
    path = recipe_file(name, folder)
    if seen and not path.is_file():  # a recipe elsewhere may be based on one of the project's
        path = recipe_file(name)
    if name in seen:
        raise ConfigError(f"{path}: base: goes in a circle: {' → '.join((*seen, name))}")
    if not path.is_file():
        known = recipe_names(folder)
        hint = did_you_mean(name, known)
        raise ConfigError(f"unknown recipe {name!r}{hint}: no {path}; known recipes: {', '.join(known)}")
    value = read_yaml(path)
    base = value.pop("base", None)
    validate_partial(value, path)
    return _over(_inherit(base, folder, (*seen, name)), value) if base else value


def _over(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """As `merge`, but another architecture begins without the arguments that the base gives to its own."""
    mine, theirs = change.get("backbone") or {}, base.get("backbone") or {}
    if mine.get("arch", theirs.get("arch")) != theirs.get("arch"):
        base = {**base, "backbone": {name: value for name, value in theirs.items() if name != "kwargs"}}
    return merge(base, change)


def validate_partial(value: Mapping[str, Any], path: Path) -> None:
    """Check one recipe file on its own, so that a message names the file that holds the wrong key."""
    validate(Recipe, numbers(Recipe, value), str(path))


def initial_recipe(recipe: Recipe) -> Recipe:
    """What a run's random init depends on: backbone, input size, normalisation and seed; the rest at defaults.

    So a change of training, losses or tiles leaves the random-init model and its scores alone.
    """
    source = recipe.crops
    crops = Crops(global_size=source.global_size, mean=source.mean, std=source.std)
    backbone = dataclasses.replace(recipe.backbone, init="random", drop_path=0.0)
    return Recipe(backbone=backbone, crops=crops, seed=recipe.seed)
