"""Every value that a key of few values may have does something, and any other is an error: none counts in silence."""

import contextlib
import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pandas as pd
import pytest
import torch
from timm.models import VisionTransformer

from midnight.config import (
    Cohort,
    Config,
    Evaluation,
    Gdc,
    Heads,
    Loss,
    Predrawn,
    Recipe,
    Tiles,
    Tissue,
    Training,
    build,
    choose,
)
from midnight.config.pipeline import is_generated
from midnight.errors import ConfigError, MidnightError
from midnight.evaluate.encoder import LOADERS, ZOOS, own_folder, pick_device
from midnight.evaluate.entries import Model, Protocol, Scheduler, Task
from midnight.evaluate.registry import configured_tasks, select_models
from midnight.evaluate.score import RUNNERS
from midnight.evaluate.segment import is_random
from midnight.evaluate.session import build_scheduler
from midnight.evaluate.store import Embeddings
from midnight.mil.compute import width_of
from midnight.slides.fetch import fetch
from midnight.slides.pin import _choose
from midnight.slides.record import Slide
from midnight.ssl.budget.cost import GPUS
from midnight.ssl.budget.memory import element
from midnight.ssl.loss_scale import LossScale
from midnight.ssl.model.heads import DINOHead
from midnight.ssl.model.network import build_student, teacher_of
from midnight.ssl.model.positions import resize_of
from midnight.ssl.runtime import autocast
from midnight.ssl.step import regularize
from midnight.tiles.draw.sampler import TileSampler
from midnight.tiles.predrawn.codec import encode
from midnight.tissue.index import training_slides
from midnight.tissue.segmenters import segment
from tests.ssl.launched import small_index
from tests.ssl.tiny import tiny_recipe

ROOTS = (Config, Recipe, Task, Model)
PIXELS = np.zeros((8, 8, 3), np.uint8)
CPU = torch.device("cpu")


def few(kind: Any) -> list[str]:
    """The values of a type that is a Literal, or a list of them or None."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if get_origin(kind) in (list, tuple, types.UnionType, typing.Union):
        return [value for inner in get_args(kind) for value in few(inner)]
    return []


def inner_classes(kind: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(kind):
        yield typing.cast(type, kind)
    for inner in get_args(kind):
        yield from inner_classes(inner)


def found_keys() -> dict[str, list[str]]:
    """`Class.field` of all configuration: its values, where they are few."""
    keys: dict[str, list[str]] = {}
    waiting, seen = list(ROOTS), set[type]()
    while waiting:
        cls = waiting.pop()
        if cls in seen:
            continue
        seen.add(cls)
        for name, kind in typing.get_type_hints(cls).items():
            waiting += inner_classes(kind)
            if values := few(kind):
                keys[f"{cls.__name__}.{name}"] = values
    return keys


def training(**change: Any) -> Training:
    """Not checked against the schema, which is what lets an unknown value come so far."""
    return dataclasses.replace(Training(), **change)


def scheduler(name: Any) -> Any:
    arguments = {"ConstantLR": {}, "CosineAnnealingLR": {"T_max": 3.0}, "PolynomialLR": {}}
    protocol = build(
        Protocol,
        {
            "runs": 1,
            "batch_size": 1,
            "lr": 0.1,
            "weight_decay": 0.0,
            "scheduler": {"name": "ConstantLR"},
            "patience": 1,
            "max_steps": 2,
        },
        "test",
    )
    changed = dataclasses.replace(protocol, scheduler=Scheduler(name, arguments.get(name, {})))
    return build_scheduler(changed)(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1))


def task(**change: Any) -> Task:
    values = {"kind": "tile", "label": "", "column": "", "metric": "", "scored": "val", "dataset": None}
    return Task(**typing.cast(Any, values | change))


def source_of_cohort(value: Any, folder: Path) -> None:
    cohort = Cohort(value, path=str(folder / "nothing"), manifest=str(folder / "nothing.tsv"))
    slides = [Slide("s", value, "f", "s.svs", 1, "", extra={"path": str(folder / "nothing")})]
    with contextlib.nullcontext() if value == "local" else pytest.raises(MidnightError):
        fetch(slides, Gdc(api="http://127.0.0.1:9", retries=1), folder, folder / "notes")
    with pytest.raises(ConfigError, match=r"nothing" if value in ("gdc", "local") else "has no effect"):
        _choose(cohort, Gdc())
    choose(value, {"gdc": 0, "local": 0}, "source")


def source_of_model(value: Any, folder: Path) -> None:
    model = Model(value, "", [14], path=str(folder))
    assert (own_folder(model, folder) is None) == (value in LOADERS)
    assert set(ZOOS) | {"colour", "weights", "random"} == set(LOADERS)


def pooled(value: Any) -> np.ndarray:
    return Embeddings(np.zeros((3, 4), np.float32), pd.DataFrame(), {"dim": 2}).pooled(value)


DISPATCHED: dict[str, Callable[[Any, Path], Any]] = {
    "Loss.regularizer": lambda value, _: regularize(torch.randn(4, 8), Loss(regularizer=value)),
    "Loss.centering": lambda value, _: teacher_of(build_student(tiny_recipe()), Loss(centering=value)),
    "Heads.prototype_length": lambda value, _: DINOHead(8, Heads(4, 8, 4, prototype_length=value)),
    "Backbone.pos_interpolation": lambda value, _: resize_of(VisionTransformer(depth=1, embed_dim=12), value),
    "Training.precision": lambda value, _: [
        autocast(CPU, training(precision=value)),
        element(dataclasses.replace(Recipe(), training=training(precision=value))),
        next(iter(GPUS.values())).peak(value),
        LossScale(value),
    ],
    "Training.sharding": lambda value, _: training(sharding=value).sharded,
    "Training.augment": lambda value, _: training(augment=value).whole_tiles,
    "Tiles.slide_weights": lambda value, folder: TileSampler(
        {"c": (training_slides(small_index(folder)), 1.0)}, Tiles(size=32, slide_weights=value)
    ),
    "Predrawn.format": lambda value, _: encode(PIXELS, Predrawn(1, format=value)),
    "Tissue.segmenter": lambda value, _: segment(np.full((64, 64, 3), 200, np.uint8), 8.0, Tissue(segmenter=value)),
    "Cohort.source": source_of_cohort,
    "Evaluation.poolings": lambda value, _: pooled(value),
    "Evaluation.tasks": lambda value, _: configured_tasks(Evaluation(tasks=value)),
    "Evaluation.models": lambda value, _: select_models(value, []),
    "Features.pooling": lambda value, _: width_of(value, 2),
    "Evaluation.accelerator": lambda value, _: value == "gpu" or pick_device(value),
    "Config.data": lambda value, _: is_generated(value),
    "Task.data": lambda value, _: is_generated(value),
    "Model.data": lambda value, _: is_generated(value),
    "Task.kind": lambda value, _: choose(value, RUNNERS, "kind"),
    "Task.scored": lambda value, _: task(scored=value).roles,
    "Dataset.crop": lambda value, _: is_random(value),
    "Scheduler.name": lambda value, _: scheduler(value),
    "Model.source": source_of_model,
}


def test_every_key_of_few_values_is_tried_here() -> None:
    assert set(found_keys()) == set(DISPATCHED)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in DISPATCHED for value in found_keys()[name]])
def test_every_value_is_known_where_it_matters(name: str, value: str, tmp_path: Path) -> None:
    DISPATCHED[name](value, tmp_path)


@pytest.mark.parametrize("name", DISPATCHED)
def test_an_unknown_value_is_an_error_where_it_matters(name: str, tmp_path: Path) -> None:
    with pytest.raises((MidnightError, AttributeError), match="unheard-of"):
        DISPATCHED[name]("unheard-of", tmp_path)


def test_what_differs_differs() -> None:
    cls = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    values = [
        float(regularize(cls, Loss(regularizer=name))) for name in get_args(typing.get_type_hints(Loss)["regularizer"])
    ]
    assert len(set(values)) == len(values)
    assert values[-1] == 0
    assert pooled("cls").shape == (3, 2)
    assert pooled("cls_mean").shape == (3, 4)
