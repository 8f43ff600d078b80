"""A quick check of a model while it is trained, or after: nearest neighbours and a linear probe on a task's embeddings.

It is no score: no protocol, one fit, nothing written. To choose a checkpoint by it, use images that are in no reported
benchmark; a benchmark's own scored split would favour the checkpoint that suits it, and `warning` says so.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from midnight.config import Evaluation
from midnight.config.pipeline import is_generated
from midnight.errors import ConfigError
from midnight.evaluate.division import divide, scored_split
from midnight.evaluate.embed import embed_task
from midnight.evaluate.encoder import load_encoder, pick_device
from midnight.evaluate.entries import POOLINGS, Model, Task
from midnight.evaluate.images import task_root
from midnight.evaluate.registry import folder_tasks, is_paper, load_tasks
from midnight.evaluate.store import Embeddings, read_embeddings
from midnight.evaluate.weights import load_weights
from midnight.ssl.monitor.knn import NEIGHBOURS, balanced_accuracy, knn_predict

SEED = 0
METHODS = {"knn": f"{NEIGHBOURS} nearest neighbours", "linear": "linear probe"}


@dataclass(frozen=True)
class Check:
    """What a quick check found. scores: pooling: {"knn", "linear"}: balanced accuracy on the scored images."""

    model: str
    size: int
    task: str
    classes: int
    train: int
    scored: int
    scores: dict[str, dict[str, float]]
    warning: str
    note: str = "quick check, not a reported score"

    @property
    def text(self) -> str:
        """A small table with what it is of."""
        counts = f"{self.train} images to train, {self.scored} scored, {self.classes} classes"
        lines = [
            f"{self.note}: balanced accuracy of {self.model} at {self.size} px on {self.task}",
            f"{counts}, chance {1 / self.classes:.3f}",
            f"{'':24}" + "".join(f"{POOLINGS[pooling]:>10}" for pooling in self.scores),
        ]
        for method, name in METHODS.items():
            lines.append(f"{name:24}" + "".join(f"{values[method]:10.3f}" for values in self.scores.values()))
        return "\n".join(lines)


def quick_check(model: Model, task: str, evaluation: Evaluation) -> Check:
    """Embed a task's images and classify them.

    Args:
        model: an entry of source `weights`: a run's folder, a checkpoint, or other people's weights; with no size it
            is checked at the one that it was trained at.
        task: a tile or folder task of config/tasks.yaml.
        evaluation: data root, batch size, decoding threads, accelerator.

    Raises:
        MidnightError: there is no such model or no data.
        ConfigError: there is no such task, or it is of another kind.
    """
    entry = find_task(task, evaluation.folders)
    used = {role: split for role, split in entry.dataset.splits.items() if role in ("train", entry.scored)}
    entry = replace(entry, dataset=replace(entry.dataset, splits=used))
    root = task_root(entry, evaluation.data_root)
    size = model.sizes[0] if model.sizes else load_weights(model).size
    with tempfile.TemporaryDirectory(prefix="midnight-quick-") as scratch:
        encoder = load_encoder(model, None, size)
        encoder.tokens.to(pick_device(evaluation.accelerator))
        folder, unread = Path(scratch, "task"), "unread: the folder is thrown away"
        embed_task(encoder, entry, root, unread, size, evaluation, folder, model.name)
        return classify(str(model.path), size, entry, read_embeddings(folder))


def find_task(name: str, folders: Mapping[str, str] | None = None) -> Task:
    """A task that can be checked quickly, of config/tasks.yaml or of `evaluation.folders`.

    Raises:
        ConfigError: there is no such task, or it is of another kind.
    """
    tasks = load_tasks()
    tasks |= folder_tasks(folders or {}, tasks)
    usable = [known for known, task in tasks.items() if task.kind in ("tile", "folder") and not task.variant_of]
    if name not in usable:
        raise ConfigError(
            f"--task: {name!r} is no tile or folder task of tasks.yaml or evaluation.folders: {', '.join(usable)}"
        )
    return tasks[name]


def classify(model: str, size: int, task: Task, stored: Embeddings) -> Check:
    """Fit on the training images and score on those that the task scores; a folder's as `divide` says."""
    labels = stored.samples["target"].to_numpy().astype(np.int64)
    own = divide(task, stored, SEED) if task.kind == "folder" else {}
    roles = ("train", scored_split(task, stored))
    train, scored = (own[role] if own else stored.rows(role) for role in roles)
    scores = {}
    for pooling in POOLINGS:
        features = np.asarray(stored.pooled(pooling), np.float32)
        scores[pooling] = measure(features[train], labels[train], features[scored], labels[scored])
    reported = not is_generated(task.data) and is_paper(task)
    warning = f"{task.name} is a reported benchmark: a checkpoint chosen by it makes its score too high"
    counts = (len(np.unique(labels)), len(train), len(scored))
    return Check(model, size, task.name, *counts, scores, warning if reported else "")


def measure(train: np.ndarray, labels: np.ndarray, scored: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Balanced accuracy by nearest neighbours and by logistic regression on standardised features.

    Args:
        train: float32 [N, D].
        labels: int64 [N], from 0.
        scored: float32 [M, D].
        truth: int64 [M].
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, known = torch.from_numpy(train), torch.from_numpy(labels)
    nearest = torch.cat([knn_predict(rows, known, part) for part in torch.from_numpy(scored).split(1024)])
    probe: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train, labels)
    predicted = {"knn": nearest, "linear": torch.from_numpy(probe.predict(scored))}
    return {method: balanced_accuracy(values, torch.from_numpy(truth)) for method, values in predicted.items()}
