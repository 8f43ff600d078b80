"""Tiny models and data sets for the tests of this folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from midnight.config import Evaluation
from midnight.evaluate import embed as embed_module
from midnight.evaluate import registry
from midnight.evaluate.entries import Task
from midnight.home import project_file
from tests.evaluate.eva_example import MODELS, SIZE, TASKS, write_consep, write_folder, write_patch_camelyon
from tests.evaluate.hest_example import write_task

WIDTH = 32


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """An exported folder of a random ViT: patch 14, two blocks, 32 wide, with so many registers."""

    def make(registers: int) -> Path:
        torch.manual_seed(registers)
        kwargs = {"patch_size": 14, "depth": 2, "embed_dim": WIDTH, "num_heads": 2, "reg_tokens": registers}
        kwargs |= {"img_size": SIZE, "dynamic_img_size": True}
        model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **kwargs)
        folder = tmp_path_factory.mktemp(f"model{registers}")
        save_file(model.state_dict(), folder / "teacher.safetensors")
        card = {"arch": "vit_tiny_patch16_224", "kwargs": kwargs, "img_size": SIZE, "patch_size": 14}
        card |= {"embed_dim": WIDTH, "registers": registers, "mean": [0.5] * 3, "std": [0.5] * 3, "data": "demo"}
        (folder / "model.json").write_text(json.dumps(card))
        return folder

    return make


@pytest.fixture
def tasks_file() -> Path:
    return project_file("config", "tasks.yaml")


@pytest.fixture
def use_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Replace the registries by these YAML texts in embed and score."""

    def use(tasks: str, models: str) -> None:
        from midnight.evaluate import score as score_module

        paths = {"tasks": tmp_path / "tasks.yaml", "models": tmp_path / "models.yaml"}
        paths["tasks"].write_text(tasks)
        paths["models"].write_text(models)
        for module in (embed_module, score_module):
            monkeypatch.setattr(
                module, "find_model", lambda name, weights: registry.find_model(name, weights, paths["models"])
            )
            monkeypatch.setattr(
                module,
                "select_tasks",
                lambda names, kind, folders: registry.select_tasks(names, kind, paths["tasks"], folders),
            )

    return use


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_patch_camelyon(root / "pcam")
    write_consep(root / "consep")
    write_folder(root / "fields")
    write_task(root / "hest")
    return root


@pytest.fixture
def tasks(tmp_path: Path) -> dict[str, Task]:
    (tmp_path / "t.yaml").write_text(TASKS)
    names = ["shots", "strict", "consep", "folder", "hest", "slides"]
    return registry.select_tasks(names, "demo", tmp_path / "t.yaml")


@pytest.fixture
def evaluation(data: Path, use_registry: Callable[[str, str], None]) -> Evaluation:
    use_registry(TASKS, MODELS)
    return Evaluation(protocol="demo", data_root=str(data), accelerator="cpu", workers=0, batch_size=16)


@pytest.fixture(scope="module", params=[0, 4], ids=["plain", "registers"])
def model_dir(request: pytest.FixtureRequest, make_model: Callable[[int], Path]) -> Path:
    return make_model(request.param)
