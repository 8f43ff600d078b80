"""The traps of an evaluation with kaiko-eva that no other test here would notice: each reintroduced, a test fails."""

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from eva.core.models.transforms import ExtractCLSFeatures
from eva.vision.models.networks.backbones.registry import backbone_registry
from eva.vision.models.wrappers import TimmModel
from PIL import Image

from midnight.config import Evaluation
from midnight.evaluate import heads, registry
from midnight.evaluate.embed import embed_task
from midnight.evaluate.encoder import load_encoder, pool
from midnight.evaluate.entries import Dataset, Model, Task
from midnight.evaluate.store import Embeddings, read_embeddings
from tests.evaluate.eva_example import tiny

HALF = (0.5, 0.5, 0.5)
VIT = {"depth": 1, "embed_dim": 32, "num_heads": 2, "patch_size": 14, "img_size": 28}


def build_like_the_registry(**kwargs: Any) -> TimmModel:
    """As eva's registry builds its models: wrapped, and reduced to the CLS token on the way out."""
    options = {**VIT, "reg_tokens": 4, "num_classes": 0, "global_pool": "", "dynamic_img_size": True}
    return TimmModel("vit_tiny_patch16_224", pretrained=False, model_kwargs=options, transforms=ExtractCLSFeatures())


def test_a_model_of_the_registry_is_not_cut_down_to_cls(monkeypatch: pytest.MonkeyPatch) -> None:
    """eva's MODEL_EXTRA_KWARGS (include_patch_tokens) reaches few models: the others silently give CLS alone."""
    monkeypatch.setitem(backbone_registry._registry, "test/vit", build_like_the_registry)
    model = Model("eva", "V", [28], model_name="test/vit", mean=HALF, std=HALF, registers=4, name="v")
    encoder = load_encoder(model, None, 28)
    images = torch.randn(2, 3, 28, 28)
    tokens = encoder.tokens(images)
    assert tokens.shape == (2, 1 + 4 + 4, 32)
    cls, mean = pool(tokens, encoder.registers).split(32, dim=1)
    assert torch.allclose(mean, encoder.tokens.model.forward_features(images)[:, 5:].mean(1), atol=1e-6)
    assert not torch.allclose(cls, mean, atol=1e-3)


def test_timm_models_take_other_sizes_than_their_own() -> None:
    """eva's registry drops dynamic_img_size for its timm names; here it is set for each."""
    for extra in ({}, {"img_size": 224}):
        kwargs = {"pretrained": False, **VIT, **extra}
        model = Model("timm", "T", [42], model_name="vit_tiny_patch16_224", kwargs=kwargs, mean=HALF, std=HALF)
        assert load_encoder(model, None, 42).tokens(torch.zeros(1, 3, 42, 42)).shape == (1, 1 + 9, 32)


def test_models_of_evas_registry_take_their_sizes() -> None:
    for model in registry.load_models().values():
        if model.source == "eva" and model.sizes != [224]:
            parameter = inspect.signature(backbone_registry.get(str(model.model_name))).parameters["dynamic_img_size"]
            assert not str(model.model_name).startswith("timm/")
            assert model.kwargs.get("dynamic_img_size", parameter.default) is True, model.name


def test_images_of_the_same_name_are_kept_apart(make_model: Callable[[int], Path], tmp_path: Path) -> None:
    """One file of embeddings per image name would be one for both folders' 0.png."""
    for name, level in (("ADI", 20), ("TUM", 230)):
        (tmp_path / "data" / name).mkdir(parents=True)
        noise = np.random.default_rng(level).integers(-20, 20, (28, 28, 3))
        Image.fromarray((level + noise).astype(np.uint8)).save(tmp_path / "data" / name / "0.png")
    dataset = Dataset("data", "midnight.evaluate.folder.FolderImages")
    task = Task("folder", "F", "f", "MulticlassAccuracy", "val", dataset, name="f")
    mean, std = (0.7, 0.5, 0.6), (0.2, 0.3, 0.4)
    encoder = dataclasses.replace(tiny(make_model(0)), mean=mean, std=std)
    settings = Evaluation(accelerator="cpu", workers=0)
    embed_task(encoder, task, tmp_path / "data", "d", 28, settings, tmp_path / "out", "tiny")
    stored = read_embeddings(tmp_path / "out")
    assert stored.samples["name"].tolist() == ["ADI/0.png", "TUM/0.png"]
    assert stored.samples["target"].tolist() == [0, 1]
    for row, name in enumerate(("ADI", "TUM")):
        image = torch.from_numpy(np.array(Image.open(tmp_path / "data" / name / "0.png"))).permute(2, 0, 1)
        # The model's own mean and std: ImageNet's or eva's default 0.5 would be another trap.
        normalised = (image / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        expected = pool(encoder.tokens(normalised[None]), encoder.registers)[0]
        assert np.allclose(stored.features[row], expected.numpy(), atol=1e-5)


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The data modules that would be fitted."""
    modules: list[Any] = []

    def note(task: Task, module: Any, data: Any, *_: Any) -> list[float]:
        modules.append(data)
        return [0.5]

    monkeypatch.setattr(heads, "run_session", note)
    return modules


def numbered(counts: dict[str, int]) -> Embeddings:
    """Embeddings that hold their own row number."""
    split = np.repeat(list(counts), list(counts.values()))
    n = len(split)
    samples = pd.DataFrame({"split": split, "name": map(str, range(n)), "target": np.arange(n) % 2, "group": "g"})
    return Embeddings(np.repeat(np.arange(n, dtype=np.float32)[:, None], 4, 1), samples, {})


def test_shots_are_drawn_from_all_of_the_training_set(captured: list[Any]) -> None:
    """Drawn from a few preselected tiles, 50 runs would share them."""
    task = registry.select_tasks(["pcam-10shot"], "paper")["pcam-10shot"]
    heads.fit_heads(task, numbered({"train": 500, "val": 40, "test": 60}), "cls", "cpu", 0)
    assert captured[0].datasets.train.features[:, 0].tolist() == list(range(500))
    drawn = [index for _ in range(task.values.runs) for index in captured[0].train_dataloader().sampler]
    assert len(drawn) == 50 * 20
    assert len(set(drawn)) > 400


def test_nothing_is_chosen_on_the_scored_test_split(captured: list[Any]) -> None:
    """Early stopping and the best checkpoint watch `val`, and `val` holds none of the test split's images."""
    for name, task in registry.select_tasks(registry.default_tasks("paper"), "paper").items():
        if task.kind not in ("tile", "slide") or task.scored != "test":
            continue
        assert task.monitor == f"val/{task.metric}"
        rows = numbered({"train": 50, "val": 40, "test": 60})
        heads.fit_heads(dataclasses.replace(task, kind="tile", max_tiles=None), rows, "cls", "cpu", 0)
        datasets = captured[-1].datasets
        assert datasets.val.features[:, 0].tolist() == list(range(50, 90)), name
        assert datasets.test.features[:, 0].tolist() == list(range(90, 150)), name
        splits = task.dataset.splits
        assert len({splits["train"], splits["val"], splits["test"]}) == 3, name
    assert len(captured) == 5
