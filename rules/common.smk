# Reads and checks the configuration; answers which runs, models and cells there are. No rules.
import functools
import re
from pathlib import Path

from snakemake.exceptions import WorkflowError

from midnight.config import Tiles, initial_recipe, load_config, load_recipe, plain
from midnight.errors import MidnightError
from midnight.evaluate import registry
from midnight.evaluate.labelled import look
from midnight.evaluate.prepare.rules import group_tasks
from midnight.paths import Layout
from midnight.slides.pin import local_look, pinned_sources, planned_slides
from midnight.tiles.shards.tileset import TileSet

CONDA = "../envs/midnight.yaml"
GPUS_PER_NODE = 8

try:
    cfg = load_config(config, " + ".join(map(str, workflow.configfiles)))
    recipes = {
        name: load_recipe(run.recipe, run.override) for name, run in cfg.runs.items()
    }
    models = registry.select_models(
        cfg.evaluation.models, cfg.runs, weights=cfg.evaluation.weights
    )
    named = registry.select_models(
        cfg.features.models,
        cfg.runs,
        where="features",
        weights=cfg.evaluation.weights,
    )
    feature_models = {name: named[name] for name in cfg.features.models}
    tasks = registry.configured_tasks(cfg.evaluation)
    # slides that are known before anything has run; None for a cohort that a rule must ask for first
    planned = {name: planned_slides(cohort) for name, cohort in cfg.cohorts.items()}
except MidnightError as error:
    raise WorkflowError(str(error))

known_models = models | feature_models
layout = Layout(cfg.results_dir, cfg.data_dir)
run_sets = {
    name: TileSet.of(run.cohorts, recipes[name].tiles, cfg.draw.tiles_per_shard)
    for name, run in cfg.runs.items()
    if recipes[name].tiles.predrawn
}
tile_sets = {tile_set.name: tile_set for tile_set in run_sets.values()}
DEMO_CATALOGUE = f"{cfg.data_dir}/demo-slides/catalogue.json"
DEMO_BENCHMARKS = f"{cfg.evaluation.data_root}/demo.json"
EMBEDDED = [name for name in tasks if tasks[name].kind != "segmentation"]


wildcard_constraints:
    cohort="|".join(cfg.cohorts) or "none",
    shard=r"\d\d\d\d+",
    run="|".join(cfg.runs) or "none",
    model="|".join(map(re.escape, known_models)) or "none",
    size=r"\d+",
    task="|".join(tasks) or "none",
    tileset="|".join(map(re.escape, tile_sets)) or "none",
    job=r"\d{4}",
    attempt=r"\d+",


@functools.cache
def pinned_params(cohort):
    """What a manifest depends on; of a local cohort also its slides, by their sizes and times."""
    try:
        look = local_look(cfg.cohorts[cohort], layout.manifest(cohort))
    except MidnightError as error:
        raise WorkflowError(str(error))
    return plain(cfg.cohorts[cohort]) | ({"look": look} if look else {})


def tissue_params():
    """What the masks depend on; the number of workers does not matter."""
    return {key: value for key, value in plain(cfg.tissue).items() if key != "workers"}


def feature_params():
    """How the tiles of whole slides are cut."""
    return {key: value for key, value in plain(cfg.features).items() if key != "models"}


def exported(run):
    """The two files of a model that the workflow makes itself."""
    return [layout.model(run, name) for name in ("teacher.safetensors", "model.json")]


def parent_files(run):
    """The model that a run starts from, where its recipe says `init: run:NAME`."""
    kind, _, parent = recipes[run].backbone.init.partition(":")
    return exported(parent) if kind == "run" else []


def model_files(model):
    """A model's files; none for models of a zoo, which their libraries fetch."""
    return exported(model) if known_models[model].source in ("run", "init") else []


def model_params(model):
    """A model's entry; of weights that a person keeps somewhere also their files' sizes and times."""
    look = registry.look_at(known_models[model])
    return plain(known_models[model]) | ({"look": look} if look else {})


def initial_params(model):
    """What the random init of a model depends on."""
    return plain(initial_recipe(recipes[known_models[model].run]))


def cohort_tiles(cohort):
    """Tile settings for examples of a cohort: those of the first run that trains on it."""
    return plain(
        next(
            (recipes[run].tiles for run in cfg.runs if cohort in cfg.runs[run].cohorts),
            Tiles(),
        )
    )


def manifest_sources(cohort):
    """Files that a cohort's manifest is made from."""
    return [
        *pinned_sources(cfg.cohorts[cohort]),
        *([DEMO_CATALOGUE] if cfg.demo else []),
    ]


@functools.cache
def data_params(task):
    """What a data set's check depends on; for labelled folders also the images, by their names, sizes and times."""
    settings = registry.data_settings(tasks[task])
    if tasks[task].kind != "folder":
        return settings
    try:
        root = Path(cfg.evaluation.data_root, tasks[task].dataset.root)
        return settings | {"look": look(root)}
    except MidnightError as error:
        raise WorkflowError(str(error))


def task_data():
    """What the tasks' data wait for: a check of each data set; the demo makes its own."""
    if cfg.demo:
        return [DEMO_BENCHMARKS]
    return [layout.prepared(name) for name in group_tasks(tasks)]


def gpu_resources(run):
    """Slurm's generic resource of one node, and the number of nodes, for a run's GPUs."""
    gpus = recipes[run].training.gpus
    return f"gpu:{min(gpus, GPUS_PER_NODE)}", -(-gpus // GPUS_PER_NODE)
