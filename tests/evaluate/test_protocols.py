"""Both protocols' values of every task, and that a fit is built from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from midnight.evaluate import registry
from midnight.evaluate.entries import Task
from midnight.evaluate.features import FeatureDataset
from midnight.evaluate.quiet import quiet
from midnight.evaluate.session import build_data, build_optimizer, build_scheduler, build_trainer

OFF = 12500
"""The paper's script sets the patience to the length of the longest fit: never stopped early."""


@dataclass(frozen=True)
class Fit:
    """What a protocol says of a task; weight decay is 0.01 everywhere. eval_batch: None = not stated, as `batch`."""

    runs: int
    patience: int
    steps: int | None = 12500
    epochs: int | None = None
    batch: int = 256
    eval_batch: int | None = None
    lr: float = 3e-4
    scheduler: str = "CosineAnnealingLR"
    length: int = 12500
    every: int = 1
    shots: int | None = None
    delta: float = 0.0
    sanity: int = 2


SLIDE: dict[str, Any] = {"steps": None, "batch": 32, "lr": 1e-3}
MASK: dict[str, Any] = {"steps": 2000, "batch": 64, "lr": 2e-3}
THIRD: dict[str, Any] = {"scheduler": "ConstantLR", "length": 5}
TEN: dict[str, Any] = {"every": 10, "shots": 10, "sanity": 0}
PAPER = {
    "pcam-10shot": Fit(50, 9, eval_batch=4096, **TEN),
    "bach": Fit(5, OFF),
    "bracs": Fit(5, OFF),
    "breakhis": Fit(5, OFF),
    "crc": Fit(5, OFF),
    "gleason": Fit(5, OFF),
    "mhist": Fit(5, OFF),
    "pcam": Fit(5, OFF, eval_batch=4096),
    "camelyon16-small": Fit(5, 10, epochs=100, length=100, **SLIDE),
    "panda-small": Fit(20, 8, epochs=49, length=49, eval_batch=4096, sanity=0, **SLIDE),
    "consep": Fit(5, OFF, scheduler="PolynomialLR", length=2000, **MASK),
    "monusac": Fit(20, OFF, scheduler="PolynomialLR", length=2000, **MASK),
}
DEFAULT = {
    "pcam-10shot": Fit(50, 125, delta=1e-4, **TEN, **THIRD),
    "bach": Fit(5, 400, **THIRD),
    "bracs": Fit(5, 74, **THIRD),
    "breakhis": Fit(5, 500, **THIRD),
    "crc": Fit(5, 7, **THIRD),
    "gleason": Fit(5, 21, **THIRD),
    "mhist": Fit(5, 70, **THIRD),
    "pcam": Fit(5, 9, **THIRD),
    "camelyon16-small": Fit(5, 10, epochs=100, length=100, **SLIDE),
    "panda-small": Fit(20, 20, epochs=100, eval_batch=32, sanity=0, **SLIDE, **THIRD),
    "consep": Fit(5, 200, **MASK, **THIRD),
    "monusac": Fit(20, 200, **MASK, **THIRD),
}
SCORED_ON_TEST = {"pcam-10shot", "bracs", "pcam", "camelyon16-small", "panda-small"}
CASES = [(protocol, name) for protocol, table in (("paper", PAPER), ("eva-default", DEFAULT)) for name in table]


def expected(protocol: str, name: str) -> Fit:
    return {"paper": PAPER, "eva-default": DEFAULT}[protocol][name]


def read_task(protocol: str, name: str) -> Task:
    return registry.select_tasks([name], protocol)[name]


def test_the_tables_hold_every_real_task() -> None:
    tasks = registry.load_tasks()
    real = {name for name, task in tasks.items() if task.data == "real" and not task.variant_of}
    assert {name for name in real if tasks[name].kind not in ("hest", "folder")} == set(PAPER) == set(DEFAULT)


@pytest.mark.parametrize(("protocol", "name"), CASES)
def test_values(protocol: str, name: str) -> None:
    task, fit = read_task(protocol, name), expected(protocol, name)
    values = task.values
    lengths = values.scheduler.args.get("T_max", values.scheduler.args.get("total_iters"))
    found = Fit(
        values.runs,
        values.patience,
        values.max_steps,
        values.max_epochs,
        values.batch_size,
        values.eval_batch_size,
        values.lr,
        values.scheduler.name,
        int(lengths or 0),
        values.validate_every,
        values.shots,
        values.min_delta,
        values.sanity_steps,
    )
    assert found == fit
    assert values.weight_decay == 0.01
    assert task.scored == ("test" if name in SCORED_ON_TEST else "val")
    others = {key: value for key, value in values.scheduler.args.items() if key not in ("T_max", "total_iters")}
    kinds = {"CosineAnnealingLR": {"eta_min": 0.0}, "PolynomialLR": {"power": 0.9}, "ConstantLR": {"factor": 1 / 3}}
    assert others == kinds[fit.scheduler]


@pytest.mark.parametrize(("protocol", "name"), CASES)
def test_a_fit_is_built_from_them(protocol: str, name: str, tmp_path: Path) -> None:
    task, fit = read_task(protocol, name), expected(protocol, name)
    with quiet():
        trainer = build_trainer(task, str(tmp_path), fit.runs, "cpu", "best")
    stop = next(item for item in trainer.callbacks if isinstance(item, EarlyStopping))
    keep = next(item for item in trainer.callbacks if isinstance(item, ModelCheckpoint))
    assert (stop.patience, stop.min_delta, stop.mode) == (fit.patience, fit.delta, "max")
    assert stop.monitor == keep.monitor == f"val/{task.metric}"
    assert (keep.mode, keep.save_top_k) == ("max", 1)
    assert (trainer.max_steps, trainer.max_epochs) == (fit.steps or -1, fit.epochs or -1)
    assert (trainer.check_val_every_n_epoch, trainer.num_sanity_val_steps) == (fit.every, fit.sanity)
    assert trainer.n_runs == fit.runs
    optimizer = build_optimizer(task.values)([torch.nn.Parameter(torch.zeros(2))])
    scheduler = build_scheduler(task.values)(optimizer)
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.defaults["weight_decay"] == 0.01
    assert type(scheduler).__name__ == fit.scheduler
    assert getattr(scheduler, "T_max", getattr(scheduler, "total_iters", None)) == fit.length
    # The first epoch's lr: whole, except with eva's default scheduler.
    assert optimizer.param_groups[0]["lr"] == pytest.approx(fit.lr / 3 if fit.scheduler == "ConstantLR" else fit.lr)


@pytest.mark.parametrize(("protocol", "name"), CASES)
def test_batches_are_the_protocols(protocol: str, name: str) -> None:
    task, fit = read_task(protocol, name), expected(protocol, name)
    data = FeatureDataset(np.zeros((60, 2), np.float32), np.arange(60) % 2, binary=True)
    module = build_data(task.values, {"train": data, "val": data, "test": data}, 0)
    train, (val,) = module.train_dataloader(), module.val_dataloader()
    assert (train.batch_size, val.batch_size) == (fit.batch, fit.eval_batch or fit.batch)
    assert len(list(train.sampler)) == (2 * fit.shots if fit.shots else 60)
    assert isinstance(val.sampler, torch.utils.data.SequentialSampler)
