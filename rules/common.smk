# Reads and checks the configuration; answers which runs, models and cells there are. No rules.
import os
import re
from pathlib import Path

from snakemake.exceptions import WorkflowError

from midnight.errors import MidnightError
from midnight.evaluate import registry
from midnight.evaluate.prepare.rules import group_tasks
from midnight.evaluate.start import read_start
from midnight.home import WORKFLOW
from midnight.paths import Layout
from midnight.slides.pin import pinned_sources, planned_slides
from midnight.ssl.checkpoint.foresight import foresee
from midnight.tiles.predrawn.tileset import TileSet

os.environ[WORKFLOW] = workflow.basedir  # whose config/ jobs read too
CONDA = "../envs/midnight.yaml"
GPUS_PER_NODE = 8

try:
    # a job looks for no file that only others need
    start = read_start(
        config, " + ".join(map(str, workflow.configfiles)), workflow.is_main_process
    )
    cfg, recipes, tasks = start.config, start.recipes, start.tasks
    models, feature_models = start.models, start.feature_models
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
    cohort="|".join(map(re.escape, cfg.cohorts)) or "none",
    shard=r"\d\d\d\d+",
    run="|".join(map(re.escape, cfg.runs)) or "none",
    model="|".join(map(re.escape, known_models)) or "none",
    size=r"\d+",
    task="|".join(map(re.escape, tasks)) or "none",
    tileset="|".join(map(re.escape, tile_sets)) or "none",
    job=r"\d{4}",
    attempt=r"\d+",


def exported(run):
    """The two files of a model that the workflow makes itself."""
    return [layout.model(run, name) for name in ("teacher.safetensors", "model.json")]


def foreseen(run):
    """One line if training would begin anew, see `foresee`."""
    try:
        return foresee(Path(layout.model(run)), recipes[run])
    except MidnightError as error:
        raise WorkflowError(str(error))


def parent_files(run):
    """The model that a run starts from, where its recipe says `init: run:NAME`."""
    kind, _, parent = recipes[run].backbone.init.partition(":")
    return exported(parent) if kind == "run" else []


def model_files(model):
    """A model's files; none for models of a zoo, which their libraries fetch."""
    return exported(model) if known_models[model].source in ("run", "init") else []


def manifest_sources(cohort):
    """Files that a cohort's manifest is made from."""
    return [
        *pinned_sources(cfg.cohorts[cohort]),
        *([DEMO_CATALOGUE] if cfg.demo else []),
    ]


def task_data():
    """What the tasks' data wait for: a check of each data set; the demo makes its own."""
    if cfg.demo:
        return [DEMO_BENCHMARKS]
    return [layout.prepared(name) for name in group_tasks(tasks)]


def gpu_resources(run):
    """Slurm's generic resource of one node, and the number of nodes, for a run's GPUs."""
    gpus = recipes[run].training.gpus
    return f"gpu:{min(gpus, GPUS_PER_NODE)}", -(-gpus // GPUS_PER_NODE)
