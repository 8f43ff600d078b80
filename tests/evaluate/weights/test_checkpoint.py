import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from midnight.config import Mlflow, load_recipe
from midnight.errors import MidnightError
from midnight.evaluate.entries import Model
from midnight.evaluate.weights import load_weights
from midnight.evaluate.weights.checkpoint import export_checkpoint
from midnight.ssl import distributed
from midnight.ssl.export import export_teacher
from midnight.ssl.job import Job, write_job
from midnight.ssl.network import build_student
from midnight.ssl.shards import own_pieces, write_shard


def test_a_checkpoint_is_its_teacher(tmp_path: Path) -> None:
    recipe = load_recipe("demo")
    teacher, run = build_student(recipe), tmp_path / "run"
    with torch.no_grad():
        teacher.backbone.vit.cls_token.add_(1.0)
    export_teacher(teacher.backbone.vit, recipe, run, 7, "demo")
    write_job(run / "job.json", Job(recipe, {}, run, None, Mlflow(), run, "demo"))
    folder = run / "checkpoints" / "step_00000007"
    folder.mkdir(parents=True)
    roles = {"student": build_student(recipe), "teacher": teacher}
    tensors = {f"{role}.{name}": value for role, net in roles.items() for name, value in net.state_dict().items()}
    write_shard(folder / "shard-00000.safetensors", own_pieces(tensors, distributed.rank(), distributed.world()))
    export_checkpoint(folder, tmp_path / "out")
    expected, found = (load_file(place / "teacher.safetensors") for place in (run, tmp_path / "out"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    loaded = load_weights(Model("weights", "W", [98], path=str(folder), name="w"))
    assert (loaded.size, loaded.mean) == (recipe.crops.global_size, recipe.crops.mean)
    assert torch.equal(loaded.vit.cls_token, teacher.backbone.vit.cls_token)
    again = load_weights(Model("weights", "W", [98], path=str(folder), name="w"))
    assert loaded.hash == again.hash

    (folder / "shard-00000.safetensors").write_bytes(b"cut")
    with pytest.raises(MidnightError, match=r"step_00000007: no usable checkpoint"):
        export_checkpoint(folder, tmp_path / "again")
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(MidnightError, match=r"step_00000007: no usable checkpoint"):
        export_checkpoint(folder, tmp_path / "again")
