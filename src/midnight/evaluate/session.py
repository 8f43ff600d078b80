"""One evaluation session of kaiko-eva: its interface fits, validates and tests; we read its results file."""

import functools
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from midnight.errors import ConfigError, MidnightError
from midnight.evaluate.entries import Protocol, Task
from midnight.evaluate.features import as_is
from midnight.evaluate.schedule import never_validated


def run_session(
    task: Task, module: Any, data: Any, runs: int, accelerator: str, seed: int, checkpoint: str = "best"
) -> list[float]:
    """Fit `runs` times from the seed and give the scored metric of each run.

    Args:
        task: metric, scored split and protocol.
        module: eva's HeadModule or SemanticSegmentationModule.
        data: eva's DataModule.
        runs: fits.
        accelerator: cpu, gpu or auto.
        seed: of Python's, numpy's and torch's generators; the runs follow each other from it.
        checkpoint: "best" on the monitored metric, or "last".

    Raises:
        MidnightError: eva gives no such metric, or another number of values.
    """
    from eva.core.interface import Interface

    check_budget(task, len(data.datasets.train), checkpoint)
    seed_all(seed)
    with tempfile.TemporaryDirectory(prefix="midnight-eva-") as folder:
        trainer = build_trainer(task, folder, runs, accelerator, checkpoint)
        Interface().fit(trainer=trainer, model=module, data=data)
        return read_results(Path(folder), task, runs)


def check_budget(task: Task, samples: int, checkpoint: str) -> None:
    """Check that a fit is long enough to be validated once, since eva loads the best validated checkpoint.

    Raises:
        ConfigError: it isn't.
    """
    if checkpoint == "best" and (problem := never_validated(task, samples)):
        raise ConfigError(problem)


def seed_all(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def build_trainer(task: Task, folder: str, runs: int, accelerator: str, checkpoint: str) -> Any:
    """eva's Trainer with the protocol's budget, early stopping and choice of the checkpoint."""
    from eva.core.trainers import Trainer
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    values = task.values
    last = checkpoint == "last"  # else one more file at each validation, that nobody reads
    keep = ModelCheckpoint(filename="best", save_last=last, save_top_k=1, monitor=task.monitor, mode="max")
    stop = EarlyStopping(task.monitor, min_delta=values.min_delta, patience=values.patience, mode="max")
    return Trainer(
        n_runs=runs,
        default_root_dir=folder,
        max_steps=values.max_steps or -1,
        max_epochs=values.max_epochs if values.max_epochs else -1,
        check_val_every_n_epoch=values.validate_every,
        num_sanity_val_steps=values.sanity_steps,
        checkpoint_type=checkpoint,
        accelerator=accelerator,
        devices=1,
        callbacks=[keep, stop],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def read_results(folder: Path, task: Task, runs: int) -> list[float]:
    """The scored metric of each run, from the results file that eva's recorder wrote below `folder`.

    Raises:
        MidnightError: no such file or metric, or another number of runs.
    """
    found = list(folder.glob("*/results.json"))
    name = f"{task.scored}/{task.metric}"
    try:
        results = json.loads(found[0].read_text(encoding="utf-8"))
        values = [float(value) for value in results["metrics"][task.scored][0][name]["values"]]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise MidnightError(f"tasks.{task.name}.metric: eva reports no {name!r}") from error
    if len(values) != runs:
        raise MidnightError(f"task {task.name}: eva reports {len(values)} values of {name}, expected {runs}")
    return values


def build_optimizer(protocol: Protocol) -> Any:
    """AdamW as a function of parameters; lr and weight decay are explicit."""
    return functools.partial(torch.optim.AdamW, lr=protocol.lr, weight_decay=protocol.weight_decay)


def build_scheduler(protocol: Protocol) -> Any:
    """The schedule as a function of an optimizer; Lightning steps it once per epoch, as for eva's own YAMLs."""
    scheduler = getattr(torch.optim.lr_scheduler, protocol.scheduler.name)
    whole = ("T_max", "total_iters")
    arguments = {name: int(value) if name in whole else value for name, value in protocol.scheduler.args.items()}
    return functools.partial(scheduler, **arguments)


def build_loader(batch_size: int, shuffle: bool, collate: Any = as_is) -> Any:
    """eva's DataLoader in the process itself: the data are in memory."""
    from eva.core.data.dataloaders import DataLoader

    return DataLoader(
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=0,
        collate_fn=collate,
        pin_memory=False,
        persistent_workers=False,
        prefetch_factor=None,
    )


def build_data(protocol: Protocol, datasets: dict[str, Any], seed: int, collate: Any = as_is) -> Any:
    """eva's DataModule over data sets by role; with `shots`, each run draws its own tiles from all of `train`.

    The sampler keeps its generator from run to run (reset_generator=False): with eva's default every run would see
    the same tiles.
    """
    from eva.core.data.datamodules import DataloadersSchema, DataModule, DatasetsSchema
    from eva.core.data.datamodules.schemas import SamplersSchema
    from eva.core.data.samplers import BalancedSampler

    sampler = BalancedSampler(protocol.shots, seed=seed, reset_generator=False) if protocol.shots else None
    held_out = build_loader(protocol.eval_batch_size or protocol.batch_size, False, collate)
    train = build_loader(protocol.batch_size, sampler is None, collate)
    return DataModule(
        datasets=DatasetsSchema(**datasets),
        dataloaders=DataloadersSchema(train=train, val=held_out, test=held_out),
        samplers=SamplersSchema(train=sampler),
    )
