"""Reading configuration files: YAML in, checked dataclasses out."""

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from midnight.config.fields import build, validate
from midnight.config.pipeline import Config, Features
from midnight.config.recipe import Crops, Recipe
from midnight.errors import ConfigError

CONFIG_DIR = Path(__file__).resolve().parents[3] / "config"
RECIPES = CONFIG_DIR / "recipes"


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
        ConfigError: a key is unknown, missing or out of range, or names something undefined.
    """
    config = build(Config, value, where)
    for name, run in config.runs.items():
        for cohort in run.cohorts:
            if cohort not in config.cohorts:
                raise ConfigError(f"{where}: runs.{name}.cohorts: no cohort {cohort!r}; known: {list(config.cohorts)}")
    for name, cohort_config in config.cohorts.items():
        if cohort_config.source == "local" and not cohort_config.path:
            raise ConfigError(f"{where}: cohorts.{name}.path: a local cohort needs the folder (or CSV) of its slides")
    check_features(config.features, f"{where}: features.")
    return config


def check_features(features: Features, where: str = "") -> None:
    """Check what the schema of features can't.

    Raises:
        ConfigError: tiles would not move on.
    """
    if features.overlap >= features.size:
        sides = f"{features.overlap} px of tiles of {features.size} px"
        raise ConfigError(f"{where}overlap: {sides}; it must be less than the size")


def recipe_names(folder: Path = RECIPES) -> list[str]:
    """Names of all recipes."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_recipe(name: str, override: Mapping[str, Any] | None = None, folder: Path = RECIPES) -> Recipe:
    """A recipe with its bases resolved and `override` laid over it.

    A recipe's `base:` names another recipe whose values it inherits.

    Raises:
        ConfigError: no such recipe, a cycle of bases, or a wrong key.
    """
    value = merge(_inherit(name, folder, ()), override or {})
    recipe = build(Recipe, value, f"{folder / name}.yaml" + (" with override" if override else ""))
    return dataclasses.replace(recipe, name=name)


def _inherit(name: str, folder: Path, seen: tuple[str, ...]) -> dict[str, Any]:
    path = folder / f"{name}.yaml"
    if name in seen:
        raise ConfigError(f"{path}: base: goes in a circle: {' → '.join((*seen, name))}")
    if not path.is_file():
        raise ConfigError(f"unknown recipe {name!r}: no {path}; known recipes: {', '.join(recipe_names(folder))}")
    value = read_yaml(path)
    base = value.pop("base", None)
    validate_partial(value, path)
    return merge(_inherit(base, folder, (*seen, name)), value) if base else value


def validate_partial(value: Mapping[str, Any], path: Path) -> None:
    """Check one recipe file on its own, so that a message names the file that holds the wrong key."""
    validate(Recipe, value, str(path))


def initial_recipe(recipe: Recipe) -> Recipe:
    """What a run's random init depends on: backbone, input size, normalisation and seed; the rest at defaults.

    So a change of training, losses or tiles leaves the random-init model and its scores alone.
    """
    source = recipe.crops
    crops = Crops(global_size=source.global_size, mean=source.mean, std=source.std)
    backbone = dataclasses.replace(recipe.backbone, init="random", drop_path=0.0)
    return Recipe(backbone=backbone, crops=crops, seed=recipe.seed)
