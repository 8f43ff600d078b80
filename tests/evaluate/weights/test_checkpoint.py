import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from midnight.cli import main
from midnight.config import Mlflow, load_recipe
from midnight.errors import MidnightError
from midnight.evaluate.entries import Model
from midnight.evaluate.weights import load_weights
from midnight.evaluate.weights.checkpoint import export_checkpoint
from midnight.ssl import distributed
from midnight.ssl.checkpoint.pieces import own_pieces, write_pieces
from midnight.ssl.exports.model_folder import export_teacher
from midnight.ssl.launch.job import Job, write_job
from midnight.ssl.model.network import Network, build_student


def make_checkpoint(run: Path) -> tuple[Path, Network]:
    """A run that ended at step 7, and its checkpoint of that step; the teacher of both."""
    recipe = load_recipe("demo")
    teacher = build_student(recipe)
    with torch.no_grad():
        teacher.backbone.vit.cls_token.add_(1.0)
        teacher.backbone.mask_token.add_(2.0)
    export_teacher(teacher.backbone.vit, recipe, run, 7, "demo")
    write_job(run / "job.json", Job(recipe, {}, run, None, Mlflow(), run, "demo"))
    folder = run / "checkpoints" / "step_00000007"
    folder.mkdir(parents=True)
    roles = {"student": build_student(recipe), "teacher": teacher}
    tensors = {f"{role}.{name}": value for role, net in roles.items() for name, value in net.state_dict().items()}
    write_pieces(folder / "shard-00000.safetensors", own_pieces(tensors, distributed.rank(), distributed.world()))
    return folder, teacher


def test_a_checkpoint_is_its_teacher(tmp_path: Path) -> None:
    recipe, run = load_recipe("demo"), tmp_path / "run"
    folder, teacher = make_checkpoint(run)
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


def test_a_checkpoint_is_exported_like_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, teacher = make_checkpoint(tmp_path / "run")
    main(["export", str(folder), str(tmp_path / "hf"), "--to", "hf"])
    saved = load_file(tmp_path / "hf" / "model.safetensors")
    assert torch.equal(saved["embeddings.mask_token"].flatten(), teacher.backbone.mask_token)
    assert "USER/run-step_00000007" in capsys.readouterr().out
    assert "# run-step_00000007" in (tmp_path / "hf" / "README.md").read_text()
    with pytest.raises(SystemExit, match="eva's files name their weights by path; export the checkpoint --to timm"):
        main(["export", str(folder), str(tmp_path / "eva"), "--to", "eva"])
    with pytest.raises(SystemExit, match=r"job\.json: no training job"):
        (tmp_path / "step_00000003").mkdir()
        main(["export", str(tmp_path / "step_00000003"), str(tmp_path / "no"), "--to", "timm"])
