"""A run from its job to its end: what surrounds the training loop."""

import contextlib
import logging
from collections.abc import Iterator

import yaml

from midnight.atomic import write_text
from midnight.logs import warn
from midnight.ssl import distributed, runtime
from midnight.ssl.checkpoint.foresight import foresee
from midnight.ssl.checkpoint.identity import run_config
from midnight.ssl.checkpoint.init_file import init_file
from midnight.ssl.checkpoint.run_key import SEGMENTS, run_key
from midnight.ssl.launch.job import Job
from midnight.ssl.launch.signals import stop_on_signals
from midnight.ssl.loader import Loader, tile_loader, tile_source
from midnight.ssl.monitor.metrics import METRICS
from midnight.ssl.monitor.outcome import read_records, stayed_flat
from midnight.ssl.monitor.probe import open_probe
from midnight.ssl.monitor.tracking import Tracker
from midnight.ssl.trainer import Trainer
from midnight.tiles.draw.lost_slides import FILE as QUARANTINED
from midnight.tiles.folders.listing import is_tile_list

log = logging.getLogger(__name__)


def train(job: Job, loader: Loader | None = None) -> None:
    """Train a run to its end, from the newest good checkpoint of the same configuration if there is one.

    Writes below the job's output: config.yaml, metrics.jsonl, checkpoints/step_*/ and, at the end,
    teacher.safetensors, model.json and heads.safetensors (what a post-training goes on with). Works alike in one
    process and under an initialised process group; who started it does not matter.

    Args:
        job: the run.
        loader: batches from a micro-step on; tiles of the cohorts if None.

    Raises:
        MidnightError: the recipe can't be run, the data end, the disk is full, or losses stay non-finite.
        StoppedError: Ctrl-C, SIGTERM or SIGUSR1 came, and a checkpoint was saved.
        StalledError: batches no longer come, and a checkpoint was saved.
    """
    recipe, output = job.recipe, job.output
    source = None if loader else tile_source(recipe, job.cohorts, job.drawn)
    runtime.check_processes(recipe.training, recipe.name)
    config = run_config(output, recipe, job.cohorts, job.init_from, job.data)
    key = run_key(config)
    if distributed.rank() == 0 and (change := foresee(output, recipe, config)):
        log.warning("%s", change)
    device = runtime.pick_device()
    runtime.check_precision(device, recipe.training)
    with runtime.prepared(device, recipe.training.workers), stop_on_signals() as stop:
        trainer = Trainer(recipe, output, key, device, job.init_from, stop)
        if distributed.rank() == 0:
            write_text(output / "config.yaml", yaml.safe_dump(config | {"hash": key}, sort_keys=False))
        with _tracked(job, config, trainer) as tracker:
            indices = {name: index for name, (index, _) in job.cohorts.items()}
            slides = {name: index for name, index in indices.items() if not is_tile_list(index)}
            probe = open_probe(recipe, slides, job.manifests, output, device)
            if not distributed.active():  # several ask each other at their first optimizer step
                stop.check(str(output))
            found = loader or tile_loader(recipe, job.cohorts, output / QUARANTINED, source, lambda: bool(stop))
            trainer.run(found, tracker, probe)
            further = {"predrawn tiles": job.drawn, "backbone.init": init_file(recipe.backbone.init)}
            inputs = indices | {role: path for role, path in further.items() if path}
            trainer.export(job.data, inputs, config.get(SEGMENTS, []))
    if distributed.rank() == 0 and (flat := stayed_flat(read_records(output / METRICS), recipe)):
        warn(log, flat)


@contextlib.contextmanager
def _tracked(job: Job, config: dict[str, object], trainer: Trainer) -> Iterator[Tracker | None]:
    """MLflow's run, of the first process; at the end it says how that came, and checkpoints under way are complete."""
    tracker = None
    if distributed.rank() == 0:
        tracker = Tracker(job.mlflow, job.tracking_dir, job.output, config, resumed=trainer.step > 0)
    status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    finally:
        trainer.checkpoints.close()
        if tracker is not None:
            tracker.close(status)
