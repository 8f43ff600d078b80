# What rules depend on besides their input files, so that a change reruns what it touches and nothing else. No rules.
import functools

from midnight.config import Tiles, initial_recipe, plain
from midnight.evaluate.labelled import look
from midnight.hashing import canonical
from midnight.slides.pin import local_look
from midnight.ssl.checkpoint.init_file import record_of, recorded
from midnight.ssl.checkpoint.run_key import decisive_recipe
from midnight.tiles.folders.look import look as look_at_tiles


def settings(value):
    """Part of the configuration as a rule's params: plain values, in which the order of keys does not matter."""
    return canonical(plain(value))


@functools.cache
def pinned_params(cohort):
    """What a manifest depends on; of a local cohort also its slides, by their sizes and times."""
    try:
        look = local_look(cfg.cohorts[cohort], layout.manifest(cohort))
    except MidnightError as error:
        raise WorkflowError(str(error))
    return canonical(plain(cfg.cohorts[cohort]) | ({"look": look} if look else {}))


@functools.cache
def tile_folder_params(name):
    """Where a folder is and what it holds, by the names, sizes and times of its files."""
    root = Path(cfg.tile_folders[name]).expanduser()
    try:
        return {"root": str(root), "look": look_at_tiles(root)}
    except MidnightError as error:
        raise WorkflowError(str(error))


def tissue_params():
    """What the masks depend on; the number of workers does not matter."""
    return {
        key: value for key, value in settings(cfg.tissue).items() if key != "workers"
    }


def feature_params():
    """How the tiles of whole slides are cut."""
    return {
        key: value for key, value in settings(cfg.features).items() if key != "models"
    }


@functools.cache
def training_params(run):
    """What a run's weights depend on; what else its recipe says (logging, checkpoints, workers) the job looks up."""
    known = recorded(Path(layout.model(run, "config.yaml")))
    try:
        record = record_of(recipes[run].backbone.init, known)
    except MidnightError as error:
        raise WorkflowError(str(error))
    return canonical(decisive_recipe(plain(recipes[run]), record))


def model_params(model):
    """A model's entry; of weights that a person keeps somewhere also their files' sizes and times."""
    look = registry.look_at(known_models[model])
    return canonical(plain(known_models[model]) | ({"look": look} if look else {}))


def initial_params(model):
    """What the random init of a model depends on."""
    return settings(initial_recipe(recipes[known_models[model].run]))


def cohort_tiles(cohort):
    """Tile settings for examples of a cohort: those of the first run, by name, that trains on it."""
    return settings(
        next(
            (
                recipes[run].tiles
                for run in sorted(cfg.runs)
                if cohort in cfg.runs[run].cohorts
            ),
            Tiles(),
        )
    )


@functools.cache
def data_params(task):
    """What a data set's check depends on; for labelled folders also the images, by their names, sizes and times."""
    params = registry.data_settings(tasks[task])
    if tasks[task].kind != "folder":
        return params
    try:
        root = Path(cfg.evaluation.data_root, tasks[task].dataset.root)
        return params | {"look": look(root)}
    except MidnightError as error:
        raise WorkflowError(str(error))
