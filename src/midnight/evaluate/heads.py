"""Heads on cached embeddings, fitted by eva: linear for tiles, ABMIL for slides, halves or given splits for folders."""

import dataclasses
from typing import Any

import numpy as np
import torch

from midnight.config import choose
from midnight.errors import MidnightError
from midnight.evaluate.division import divide
from midnight.evaluate.entries import Task
from midnight.evaluate.features import feature_dataset
from midnight.evaluate.perturb import leave_generator_alone
from midnight.evaluate.quiet import quiet
from midnight.evaluate.session import build_data, build_optimizer, build_scheduler, run_session
from midnight.evaluate.store import Embeddings
from midnight.evaluate.workers import torch_threads

VALIDATIONS = 10


def fit_heads(task: Task, embeddings: Embeddings, pooling: str, accelerator: str, seed: int) -> list[float]:
    """The scored metric of each run of a tile, slide or folder task.

    Args:
        task: with its protocol set.
        embeddings: of the task's images.
        pooling: "cls" or "cls_mean".
        accelerator: cpu, gpu or auto.
        seed: of heads, batches and drawn tiles; the same for every model and pooling.

    Raises:
        MidnightError: a split or class is missing, or eva gives no such metric.
    """
    with quiet(), torch_threads(1):
        if task.kind == "folder":
            return _fit_folder(task, embeddings, pooling, accelerator, seed)
        rows = {role: embeddings.rows(role) for role in task.roles}
        return _fit(task, task.classes, embeddings, rows, pooling, accelerator, seed, task.values.runs, "best")


def _fit(
    task: Task,
    classes: int,
    embeddings: Embeddings,
    rows: dict[str, np.ndarray],
    pooling: str,
    accelerator: str,
    seed: int,
    runs: int,
    checkpoint: str,
) -> list[float]:
    datasets = {}
    for role, chosen in rows.items():
        if not len(chosen):
            raise MidnightError(f"task {task.name}: no embeddings of split {role!r}; run the embed rule again")
        datasets[role] = feature_dataset(embeddings, chosen, pooling, classes == 1, task.max_tiles)
    dim = embeddings.pooled(pooling).shape[1]
    data = build_data(task.values, datasets, seed)
    if task.variant_of and "val" in task.dataset.splits:  # the base task tests nothing between its runs
        leave_generator_alone(data)
    module = build_head(task, classes, dim)
    torch.manual_seed(seed)
    module.configure_model()  # eva's predict_fit builds the head before its first run: all runs start from it
    return run_session(task, module, data, runs, accelerator, seed, checkpoint)


def build_head(task: Task, classes: int, dim: int) -> Any:
    """eva's HeadModule for embeddings float32 [B, dim] (slides: [B, tiles, dim]) and `classes` outputs, 1 = binary."""
    from eva.core.metrics.structs import MetricsSchema
    from eva.core.models.modules import HeadModule

    binary = classes == 1
    return HeadModule(
        head=describe_head(task, classes, dim),
        criterion=torch.nn.BCEWithLogitsLoss() if binary else torch.nn.CrossEntropyLoss(),
        optimizer=build_optimizer(task.values),
        lr_scheduler=build_scheduler(task.values),
        metrics=MetricsSchema(evaluation=pick_metric(task, classes)),
    )


def pick_metric(task: Task, classes: int) -> Any:
    """The task's metric out of eva's own for `classes` outputs: the others would take most of a validation's time.

    Raises:
        MidnightError: eva has no such metric.
    """
    from eva.core.metrics.defaults import BinaryClassificationMetrics, MulticlassClassificationMetrics
    from eva.core.metrics.structs import MetricCollection

    own = BinaryClassificationMetrics() if classes == 1 else MulticlassClassificationMetrics(num_classes=classes)
    if task.metric not in own:
        raise MidnightError(f"tasks.{task.name}.metric: eva reports no {task.metric!r}; it has {', '.join(own)}")
    return MetricCollection({task.metric: own[task.metric]})


def describe_head(task: Task, classes: int, dim: int) -> dict[str, Any]:
    """Class path and arguments of the head, as in eva's YAMLs."""
    abmil = {"input_size": dim, "output_size": classes, "projected_input_size": 128}
    linear = {
        "class_path": "torch.nn.Linear",
        "init_args": {"in_features": dim, "out_features": classes},
    }
    heads = {
        "tile": linear,
        "folder": linear,
        "slide": {"class_path": "eva.vision.models.networks.ABMIL", "init_args": abmil},
    }
    return choose(task.kind, heads, f"tasks.{task.name}.kind")


def _fit_folder(task: Task, embeddings: Embeddings, pooling: str, accelerator: str, seed: int) -> list[float]:
    """Each run trains on a half and is scored on the other, or on given splits; nothing is chosen by what is scored.

    With train, val and test the fit is validated ten times and its best on `val` is scored on `test`.
    """
    values = []
    for run in range(task.values.runs):
        rows = divide(task, embeddings, seed + run)
        fitted, checkpoint = task, "last"
        if len(rows) == 3:
            fitted, checkpoint = _validated(task, len(rows["train"])), "best"
        elif "test" in rows:
            rows = {"train": rows["train"], "val": rows["test"]}
        classes = int(embeddings.samples["target"].max()) + 1
        values += _fit(fitted, classes, embeddings, rows, pooling, accelerator, seed + run, 1, checkpoint)
    return values


def _validated(task: Task, images: int) -> Task:
    """The task as one that is scored on `test` by the best of about ten validations, `images` being trained on."""
    values = task.values
    epochs = values.max_epochs or -(-(values.max_steps or 1) // -(-images // values.batch_size))
    changed = dataclasses.replace(values, validate_every=max(1, epochs // VALIDATIONS))
    return dataclasses.replace(task, scored="test", protocols={task.protocol: changed})
