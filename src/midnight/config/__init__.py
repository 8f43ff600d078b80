"""Typed configuration with defaults and documentation."""

from midnight.config.fields import build, choose, plain, schema
from midnight.config.load import (
    check_features,
    initial_recipe,
    load_config,
    load_recipe,
    load_runs,
    merge,
    read_yaml,
    recipe_names,
)
from midnight.config.pipeline import Cohort, Config, Draw, Evaluation, Features, Gdc, Mlflow, Run, Tissue
from midnight.config.recipe import Backbone, Crops, Heads, HsvFilter, Loss, Optimizer, Predrawn, Recipe, Tiles, Training

__all__ = [
    "Backbone",
    "Cohort",
    "Config",
    "Crops",
    "Draw",
    "Evaluation",
    "Features",
    "Gdc",
    "Heads",
    "HsvFilter",
    "Loss",
    "Mlflow",
    "Optimizer",
    "Predrawn",
    "Recipe",
    "Run",
    "Tiles",
    "Tissue",
    "Training",
    "build",
    "check_features",
    "choose",
    "initial_recipe",
    "load_config",
    "load_recipe",
    "load_runs",
    "merge",
    "plain",
    "read_yaml",
    "recipe_names",
    "schema",
]
