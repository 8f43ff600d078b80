"""The benchmark's data, model and protocols, in a folder that both sides read."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import yaml

from midnight.config.load import merge, read_yaml
from midnight.demo.bach import write_bach
from midnight.demo.consep import write_consep
from midnight.demo.patch_camelyon import write_patch_camelyon
from midnight.evaluate.entries import Task
from midnight.evaluate.registry import select_tasks, tasks_file
from midnight.ssl.exports.model_folder import save_weights

MODEL, SEED, MEAN_STD = "demo-random", 0, [0.5, 0.5, 0.5]
"""The registry's entry that the model is run as, the seed of both sides, the model's normalisation."""
WRITERS: dict[str, Callable[[Path, int, float], None]] = {
    "bach": write_bach,
    "patch_camelyon": write_patch_camelyon,
    "consep": write_consep,
}


@dataclass(frozen=True)
class Effort:
    """What is evaluated.

    arch, kwargs, size: the model, random weights, and its input in px; tasks: with what is changed of the demo's
    protocol; repetitions: of our side; scale: of the demo's data.
    """

    arch: str
    kwargs: dict[str, Any]
    size: int
    tasks: dict[str, dict[str, int]]
    poolings: tuple[str, ...]
    repetitions: int
    scale: float = 1.0


@dataclass(frozen=True)
class Workspace:
    """A prepared folder: data/, model/, tasks.yaml; the model's card; the tasks with their protocol."""

    folder: Path
    effort: Effort
    card: dict[str, Any]
    tasks: dict[str, Task]

    @property
    def data(self) -> Path:
        """Where the data sets are."""
        return self.folder / "data"

    @property
    def model(self) -> Path:
        """The exported model's folder."""
        return self.folder / "model"


def prepare(folder: Path, effort: Effort) -> Workspace:
    """Write data, model and protocols."""
    known = read_yaml(tasks_file())["tasks"]
    entries = {name: merge(known[name], {"protocols": {"demo": change}}) for name, change in effort.tasks.items()}
    (folder / "tasks.yaml").write_text(yaml.safe_dump({"tasks": entries}), encoding="utf-8")
    (folder / "effort.json").write_text(json.dumps(asdict(effort)), encoding="utf-8")
    tasks = select_tasks(list(entries), "demo", folder / "tasks.yaml")
    for root in {task.dataset.root for task in tasks.values()}:
        WRITERS[root](folder / "data" / root, SEED, effort.scale)
    return Workspace(folder, effort, write_model(folder / "model", effort), tasks)


def write_model(folder: Path, effort: Effort) -> dict[str, Any]:
    """Export the model with random weights; gives its card.

    LayerScale starts at 1, since with DINOv2's 1e-5 a random model has nearly the same features for all images.
    """
    folder.mkdir()
    torch.manual_seed(SEED)
    kwargs = {"init_values": 1.0, **effort.kwargs, "img_size": effort.size, "dynamic_img_size": True}
    model = timm.create_model(effort.arch, num_classes=0, **kwargs)
    save_weights(folder / "teacher.safetensors", model.state_dict())
    card = {"arch": effort.arch, "kwargs": kwargs, "embed_dim": model.embed_dim, "registers": model.num_reg_tokens}
    card |= {"mean": MEAN_STD, "std": MEAN_STD, "data": "demo"}
    (folder / "model.json").write_text(json.dumps(card), encoding="utf-8")
    return card
