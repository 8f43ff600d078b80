"""A recipe and batches small enough for tests."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from midnight.config import Mlflow, Recipe, build, merge
from midnight.ssl.launch.job import Job

VALUES: dict[str, Any] = {
    "name": "tiny",
    "crops": {"global_size": 28, "local_size": 14, "n_local": 2},
    "backbone": {
        "arch": "vit_tiny_patch16_224",
        "kwargs": {"patch_size": 7, "embed_dim": 24, "depth": 2, "num_heads": 2},
        "layer_scale": 1.0,
        "drop_path": 0.2,
    },
    "heads": {"prototypes": 32, "hidden": 24, "bottleneck": 12},
    "training": {
        "iterations": 8,
        "gpus": 1,
        "batch_size": 4,
        "accumulation": 2,
        "checkpoint_every": 2,
        "log_every": 1,
        "probe_every": 0,
        "workers": 0,
        "precision": "float32",
    },
}
OFF = Mlflow(tracking_uri="off")


def tiny_recipe(**change: Any) -> Recipe:
    return build(Recipe, merge(VALUES, change), "test")


def batch_at(step: int, batch: int = 4, local: int = 2) -> dict[str, Tensor]:
    """Random crops that depend on the step only, as those of the tile stream do."""
    generator = torch.Generator().manual_seed(1000 + step)

    def crops(views: int, size: int) -> Tensor:
        return torch.randint(0, 256, (batch, views, 3, size, size), dtype=torch.uint8, generator=generator)

    return {"global_crops": crops(2, 28), "local_crops": crops(local, 14)}


def loader(start: int) -> Iterator[Mapping[str, Tensor]]:
    return (batch_at(step) for step in itertools.count(start))


def train_tiny(output: Path, recipe: Recipe | None = None, batches: Any = loader, **arguments: Any) -> None:
    from midnight.ssl.train import train  # which needs OpenSlide; a recipe alone does not

    values = {"cohorts": {}, "init_from": None, "mlflow": OFF, "tracking_dir": output.parent, "data": "demo"}
    train(Job(recipe or tiny_recipe(), output=output, **(values | arguments)), batches)
