"""Fused blocks of several processes, of whole and of shared weights: losses and gradients are those of plain blocks."""

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from midnight.ssl import distributed
from midnight.ssl.model import backbone
from midnight.ssl.model.network import build_student, teacher_of
from midnight.ssl.sharding import shard
from midnight.ssl.step import compute_losses, prepare
from tests.ssl.tiny import batch_at, tiny_recipe

WORLD = 2
KWARGS = {"patch_size": 7, "embed_dim": 32, "depth": 3, "num_heads": 2}
CASES = [
    (sharded, checkpointing, rate)
    for sharded in (False, True)
    for checkpointing in (False, True)
    for rate in (0.0, 0.4)
]


def measure(fuse: bool, sharded: bool, checkpointing: bool, rate: float) -> dict[str, torch.Tensor]:
    """Losses and gradients of one micro-step with hidden patches, averaged over processes."""
    arch = {"arch": "vit_giant_patch14_reg4_dinov2", "kwargs": KWARGS, "drop_path": rate}
    recipe = tiny_recipe(backbone=arch, training={"activation_checkpointing": checkpointing, "gpus": WORLD})
    student = build_student(recipe)
    if fuse:
        student.backbone.fuse_blocks()
        assert student.backbone.fuse
    teacher, device = teacher_of(student), torch.device("cpu")
    teacher.backbone.fuse = fuse
    if sharded:
        shard(student, device)
        shard(teacher, device)
    torch.manual_seed(3)
    masks = torch.rand(8, 16) < 0.3
    batch = prepare(batch_at(distributed.rank()), masks, recipe.crops, device)
    losses = compute_losses(student, teacher, batch, 0.07, recipe.loss)
    losses.total.backward()
    distributed.average_gradients(student)
    found = {"total": losses.total.detach(), "ibot": losses.ibot.detach()}
    gradients = {name: value.grad for name, value in student.named_parameters() if value.grad is not None}
    return found | {name: distributed.whole(gradient) for name, gradient in gradients.items()}


def worker(rank: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29637"}
    torch.set_num_threads(1)
    backbone.FUSED_ON = {"cpu"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    plain = {case: measure(False, False, False, case[2]) for case in CASES}
    torch.save([(case, measure(True, *case), plain[case]) for case in CASES], folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_fused_blocks_with_ddp_and_fsdp(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=worker, args=(rank, tmp_path)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0] * WORLD
    for rank in range(WORLD):
        for case, ours, expected in torch.load(tmp_path / f"{rank}.pt", weights_only=True):
            assert ours.keys() == expected.keys()
            for name, value in expected.items():
                assert off(ours[name], value) < 1e-4, (case, name, off(ours[name], value))


def off(ours: torch.Tensor, expected: torch.Tensor) -> float:
    """Error relative to the norm: register tokens start near 0, where LayerNorm multiplies gradients by a thousand."""
    return float((ours - expected).norm() / expected.norm().clamp_min(1e-6))


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_of_one_process(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = measure(False, False, False, rate)
    monkeypatch.setattr(backbone, "FUSED_ON", {"cpu"})
    for name, value in measure(True, False, True, rate).items():
        assert off(value, plain[name]) < 1e-4, (name, off(value, plain[name]))
