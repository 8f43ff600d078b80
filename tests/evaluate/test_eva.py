"""Embeddings and heads beside kaiko-eva's own data sets, samplers and predict_fit."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from eva.core.callbacks import ClassificationEmbeddingsWriter
from eva.core.data.dataloaders import DataLoader
from eva.core.data.datamodules import DataloadersSchema, DataModule, DatasetsSchema
from eva.core.data.datamodules.schemas import SamplersSchema
from eva.core.data.datasets import EmbeddingsClassificationDataset
from eva.core.data.samplers import BalancedSampler
from eva.core.interface import Interface
from eva.core.metrics import AverageLoss
from eva.core.metrics.defaults import BinaryClassificationMetrics
from eva.core.metrics.structs import MetricsSchema
from eva.core.models.modules import HeadModule
from eva.core.models.transforms import ExtractCLSFeatures
from eva.core.trainers import Trainer
from eva.vision.models.wrappers import TimmModel
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from midnight.config import Evaluation
from midnight.errors import ConfigError, MidnightError
from midnight.evaluate import embed as embed_module
from midnight.evaluate import registry
from midnight.evaluate.division import split_halves
from midnight.evaluate.entries import Task
from midnight.evaluate.features import feature_dataset
from midnight.evaluate.folder import FolderImages
from midnight.evaluate.heads import build_head, fit_heads
from midnight.evaluate.images import find_class, open_images, preprocessing
from midnight.evaluate.quiet import quiet
from midnight.evaluate.session import build_data, build_optimizer, build_scheduler, read_results, seed_all
from midnight.evaluate.store import Embeddings, read_embeddings
from tests.evaluate.eva_example import SIZE, SPLITS, run_embed, tiny, write_folder, write_patch_camelyon


def synthetic(n: int = 64, dim: int = 6, seed: int = 0) -> Embeddings:
    """Embeddings whose first column tells the class."""
    rng = np.random.default_rng(seed)
    target = np.arange(n) % 2
    features = rng.normal(size=(n, 2 * dim)).astype(np.float32)
    features[:, 0] += 8 * (target - 0.5)
    split = np.repeat(["train", "val", "test"], [n // 2, n // 4, n // 4])
    group = [f"slide{row // 4 * 2 + row % 2}" for row in range(n)]
    samples = pd.DataFrame({"split": split, "name": [str(i) for i in range(n)], "target": target * 1.0, "group": group})
    return Embeddings(features, samples, {"count": n})


# What the registry names


def test_real_tasks_use_evas_classes_untouched() -> None:
    for task in registry.load_tasks().values():
        if task.kind == "hest":
            continue
        found = find_class(task.dataset.class_path)
        if task.data == "real" and task.kind != "folder":
            assert found.__module__.startswith("eva.")
        for value in task.dataset.args.values():
            if isinstance(value, dict):
                assert find_class(value["class_path"]).__module__.startswith("eva.")


# Embeddings


def test_embeddings_are_those_of_the_images(
    data: Path, model_dir: Path, evaluation: Evaluation, tasks: dict[str, Task], tmp_path: Path
) -> None:
    folders = run_embed(model_dir, evaluation, tmp_path)
    encoder = tiny(model_dir)
    stored = read_embeddings(folders["shots"])
    images = open_images(tasks["shots"], data / "pcam", "val", preprocessing(SIZE, encoder.mean, encoder.std))
    row = stored.rows("val")[5]
    tokens = encoder.tokens(images[5][0][None])[0]
    expected = torch.cat([tokens[0], tokens[1 + encoder.registers :].mean(0)])
    assert np.allclose(stored.features[row], expected.numpy(), atol=1e-5)
    assert stored.samples["target"][row] == float(images[5][1])
    assert stored.index["counts"] == {"train": 48, "val": 24, "test": 32}
    assert stored.index["model_hash"] == encoder.hash
    folder = read_embeddings(folders["folder"])
    assert folder.samples["name"].tolist()[:7] == [*(f"ADI/{i}.png" for i in range(6)), "LYM/0.png"]
    hest = read_embeddings(folders["hest"])
    assert hest.samples["name"][12] == "S1/S1x0"
    assert set(hest.samples["split"]) == {"S0", "S1", "S2"}


def test_what_is_up_to_date_is_not_computed_again(
    make_model: Callable[[int], Path], evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = run_embed(make_model(0), evaluation, tmp_path, ["folder", "hest"])
    before = (folders["folder"] / "features.npy").stat().st_mtime_ns
    (folders["folder"] / "index.json").unlink()

    def load(*_: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(embed_module, "load_encoder", load)
    run_embed(make_model(0), evaluation, tmp_path, ["folder", "hest"])
    assert (folders["folder"] / "features.npy").stat().st_mtime_ns == before
    assert json.loads((folders["folder"] / "index.json").read_text())["count"] == 18
    with pytest.raises(AssertionError, match="computed again"):
        run_embed(make_model(4), evaluation, tmp_path, ["folder"])


def test_eva_checks_counts_except_where_a_subclass_says_so(data: Path, tasks: dict[str, Task]) -> None:
    transforms = preprocessing(SIZE, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(MidnightError, match=r"task strict: wrong data in .*length \(48\) does not match"):
        open_images(tasks["strict"], data / "pcam", "train", transforms)
    assert len(open_images(tasks["shots"], data / "pcam", "train", transforms)) == SPLITS["train"]


def test_a_truncated_file_is_one_clear_line(data: Path, tasks: dict[str, Task], tmp_path: Path) -> None:
    write_patch_camelyon(tmp_path / "pcam")
    path = tmp_path / "pcam" / "camelyonpatch_level_2_split_train_y.h5"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(MidnightError, match=r"task shots: wrong data in") as caught:
        open_images(tasks["shots"], tmp_path / "pcam", "train", preprocessing(SIZE, (0.5,) * 3, (0.5,) * 3))
    assert "\n" not in str(caught.value)


def test_segmentation_has_no_embeddings(
    make_model: Callable[[int], Path], evaluation: Evaluation, tmp_path: Path
) -> None:
    with pytest.raises(MidnightError, match="task consep: segmentation runs online"):
        run_embed(make_model(0), evaluation, tmp_path, ["consep"])


# Traps of eva


def test_every_run_draws_its_own_tiles_from_the_whole_training_set(tasks: dict[str, Task]) -> None:
    stored = synthetic(n=400)
    train = feature_dataset(stored, stored.rows("train"), "cls", binary=True)
    with quiet():
        module = build_data(tasks["shots"].values, {"train": train}, seed=3)
        runs = [list(module.train_dataloader().sampler) for _ in range(40)]
        again = build_data(tasks["shots"].values, {"train": train}, seed=3)
        assert list(again.train_dataloader().sampler) == runs[0]
        trap = BalancedSampler(num_samples=4)
        trap.set_dataset(train)
        first = list(trap)
        trap.set_dataset(train)
    assert list(trap) == first
    assert len({tuple(sorted(run)) for run in runs}) == 40
    assert all(sorted(train.load_target(i) for i in run) == [0] * 4 + [1] * 4 for run in runs)
    assert len({index for run in runs for index in run}) > 150


def test_weight_decay_and_schedule_are_explicit(tasks: dict[str, Task]) -> None:
    for name in ("shots", "slides"):
        module = build_head(tasks[name], 1, 6)
        module.configure_model()
        configured = module.configure_optimizers()
        assert "lr_scheduler" in configured
        check_optimizer(configured, 0.05)


def test_the_papers_lr_is_not_cut_to_a_third() -> None:
    for name in ("bach", "pcam-10shot", "consep", "camelyon16-small"):
        values = registry.select_tasks([name], "paper")[name].values
        optimizer = build_optimizer(values)([torch.nn.Parameter(torch.zeros(2))])
        build_scheduler(values)(optimizer)
        assert optimizer.param_groups[0]["lr"] == values.lr
        default = registry.select_tasks(["bach"], "eva-default")["bach"].values
        optimizer = build_optimizer(default)([torch.nn.Parameter(torch.zeros(2))])
        build_scheduler(default)(optimizer)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(default.lr / 3)


def check_optimizer(configured: dict[str, Any], weight_decay: float) -> None:
    group = configured["optimizer"].param_groups[0]
    assert group["weight_decay"] == weight_decay
    assert group["lr"] == 0.01
    assert type(configured["lr_scheduler"]).__name__ == "CosineAnnealingLR"


class SeedFits(Callback):
    """eva seeds when it starts; ours when fits start, which is when eva's embeddings are written."""

    def on_predict_end(self, *_: Any) -> None:
        seed_all(5)


def run_plainly(task: Task, model_dir: Path, root: Path, pooling: str, output: Path) -> list[float]:
    """The task by eva's predict_fit: its writer's .pt files, its data sets, loaders and metrics."""
    card, values, roles = json.loads((model_dir / "model.json").read_text()), task.values, ("train", "val", "test")
    mean = ExtractCLSFeatures(include_patch_tokens=True, num_register_tokens=card["registers"])
    kwargs = card["kwargs"] | {"num_classes": 0} | ({"global_pool": ""} if pooling == "cls_mean" else {})
    weights = str(model_dir / "teacher.safetensors")
    backbone = TimmModel(
        card["arch"],
        checkpoint_path=weights,
        model_kwargs=kwargs,
        transforms=mean if pooling == "cls_mean" else None,
    )
    transforms, folder = preprocessing(SIZE, card["mean"], card["std"]), str(output / "embeddings")
    read = functools.partial(EmbeddingsClassificationDataset, folder, "manifest.csv", target_transforms=as_float)
    datasets = {role: read(split=role) for role in roles}
    datasets["predict"] = [open_images(task, root, role, transforms) for role in roles]
    alone = {"num_workers": 0, "pin_memory": False, "persistent_workers": False, "prefetch_factor": None}
    loaders = {role: DataLoader(batch_size=256, **alone) for role in roles} | {"predict": DataLoader(16, **alone)}
    watch = {"monitor": task.monitor, "mode": "max"}
    writer = ClassificationEmbeddingsWriter(folder, backbone, dict(enumerate(roles)))
    kept = ModelCheckpoint(filename="best", save_last=True, save_top_k=1, **watch)
    trainer = Trainer(
        n_runs=values.runs,
        default_root_dir=str(output),
        max_steps=values.max_steps,
        check_val_every_n_epoch=values.validate_every,
        num_sanity_val_steps=0,
        accelerator="cpu",
        callbacks=[writer, SeedFits(), kept, EarlyStopping(patience=values.patience, **watch)],
        logger=False,
    )
    width = card["embed_dim"] * (2 if pooling == "cls_mean" else 1)
    module = HeadModule(
        head={"class_path": "torch.nn.Linear", "init_args": {"in_features": width, "out_features": 1}},
        criterion=torch.nn.BCEWithLogitsLoss(),
        optimizer=functools.partial(torch.optim.AdamW, lr=values.lr, weight_decay=values.weight_decay),
        lr_scheduler=functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=24, eta_min=0.0),
        metrics=MetricsSchema(common=[AverageLoss(), BinaryClassificationMetrics()]),
    )
    sampler = SamplersSchema(train=BalancedSampler(values.shots, seed=5, reset_generator=False))
    data = DataModule(DatasetsSchema(**datasets), DataloadersSchema(**loaders), sampler)
    torch.manual_seed(5)  # the head, which eva builds while it predicts: once for all runs
    Interface().predict_fit(trainer, module, data)
    return read_results(output, task, values.runs)


@pytest.mark.parametrize("pooling", ["cls", "cls_mean"])
def test_scores_equal_those_of_plain_predict_fit(
    pooling: str,
    data: Path,
    make_model: Callable[[int], Path],
    evaluation: Evaluation,
    tasks: dict[str, Task],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Identical values, of models with registers too, from the same seed."""
    values = dataclasses.replace(tasks["shots"].values, lr=0.1)
    model_dir, task = make_model(4), dataclasses.replace(tasks["shots"], protocols={"demo": values})
    # eva's writer would be spawned, and import eva once more.
    monkeypatch.setattr(EmbeddingsClassificationDataset, "_set_multiprocessing_start_method", lambda _: None)
    with quiet():
        plain = run_plainly(task, model_dir, data / "pcam", pooling, tmp_path / "eva")
    stored = read_embeddings(run_embed(model_dir, evaluation, tmp_path, ["shots"])["shots"])
    assert fit_heads(task, stored, pooling, "cpu", seed=5) == plain
    assert len(set(plain)) > 1
    assert np.mean(plain) > 0.6  # 0.68 and 0.69; 0.5 is chance


def as_float(value: torch.Tensor) -> torch.Tensor:
    return value.float()


def test_a_metric_that_eva_has_not_is_named(tasks: dict[str, Task]) -> None:
    task = dataclasses.replace(tasks["shots"], metric="Balance")
    with pytest.raises(MidnightError, match=r"tasks\.shots\.metric: eva reports no 'Balance'; it has BinaryAUROC, "):
        fit_heads(task, synthetic(), "cls", "cpu", 0)


def test_a_file_of_many_images_stays_open(data: Path, tasks: dict[str, Task]) -> None:
    """Else HDF5 decompresses a chunk of many images anew for each of them."""
    images = open_images(tasks["shots"], data / "pcam", "val", preprocessing(SIZE, (0.5,) * 3, (0.5,) * 3))
    assert images.held.shape == (SPLITS["valid"], 32, 32, 3)
    assert images.held.file.id.get_access_plist().get_cache()[2] > 50e6


def test_scores_repeat_with_the_seed_and_change_with_it(tasks: dict[str, Task]) -> None:
    stored = synthetic(n=96)
    first = fit_heads(tasks["shots"], stored, "cls", "cpu", seed=1)
    assert fit_heads(tasks["shots"], stored, "cls", "cpu", seed=1) == first
    assert fit_heads(tasks["shots"], stored, "cls", "cpu", seed=2) != first
    assert len(first) == 3


def test_a_fit_must_be_validated_once(tasks: dict[str, Task]) -> None:
    values = dataclasses.replace(tasks["shots"].values, validate_every=50)
    with pytest.raises(ConfigError, match=r"protocols\.demo\.validate_every: 50, but the fit ends after 24 epochs"):
        fit_heads(dataclasses.replace(tasks["shots"], protocols={"demo": values}), synthetic(), "cls", "cpu", 0)


def test_slides_are_bags_for_evas_abmil(tasks: dict[str, Task]) -> None:
    stored = synthetic(n=192)
    values = fit_heads(tasks["slides"], stored, "cls_mean", "cpu", seed=0)
    assert len(values) == 2
    assert np.mean(values) > 0.7


# Folders


def test_halves_are_stratified_disjoint_and_random() -> None:
    targets = np.repeat([0, 1, 2], [10, 7, 4])
    halves = split_halves(targets, 0)
    assert sorted([*halves["train"], *halves["val"]]) == list(range(21))
    assert np.bincount(targets[halves["train"]]).tolist() == [5, 3, 2]
    assert split_halves(targets, 0)["train"].tolist() == halves["train"].tolist()
    assert split_halves(targets, 1)["train"].tolist() != halves["train"].tolist()


def test_a_folder_needs_two_classes(tmp_path: Path, tasks: dict[str, Task]) -> None:
    write_folder(tmp_path / "one")
    for name in ("LYM", "TUM"):
        for path in (tmp_path / "one" / name).iterdir():
            path.unlink()
    with pytest.raises(MidnightError, match=r"task folder: wrong data in .*two classes or more, found \['ADI'\]"):
        open_images(tasks["folder"], tmp_path / "one", "all", preprocessing(SIZE, (0.5,) * 3, (0.5,) * 3))
    images = FolderImages(str(tmp_path / "one"))
    images.configure()
    assert len(images) == 6


def test_real_labelled_fields_are_a_folder_task(real_data: Path, tasks: dict[str, Task]) -> None:
    root = real_data / "labelled" / "colorectal-cancer"
    images = open_images(tasks["folder"], root, "all", preprocessing(SIZE, (0.5,) * 3, (0.5,) * 3))
    assert len(images.classes) == 7
    assert len(images) == 70
    assert images[0][0].shape == (3, SIZE, SIZE)
