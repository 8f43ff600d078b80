"""Two processes do what one does with the same tiles."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from midnight.ssl import distributed
from midnight.ssl.loss.centering import Centre
from midnight.ssl.loss.kde import kde_loss
from midnight.ssl.loss.koleo import koleo_loss
from midnight.ssl.loss.sinkhorn import scaled_sinkhorn, sinkhorn
from midnight.ssl.model.network import build_student, teacher_of
from midnight.ssl.step import Batch, compute_losses
from tests.ssl.tiny import tiny_recipe

WORLD = 2


def example() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "logits": torch.rand(12, 8, generator=generator),
        "embeddings": torch.randn(8, 6, generator=generator),
        "crops": torch.randn(2, 4, 3, 28, 28, generator=generator),
    }


def share(values: torch.Tensor, rank: int, world: int) -> torch.Tensor:
    return values.chunk(world)[rank]


def measure(rank: int, world: int) -> dict[str, torch.Tensor]:
    """Targets, losses and gradients of this rank's share of the example."""
    data = example()
    rows = share(data["embeddings"], rank, world).requires_grad_()
    # 4 of 12 rows go to rank 0 and 8 to rank 1: processes may bring different numbers of hidden patches.
    logits = data["logits"] if world == 1 else data["logits"].split([4, 8])[rank]
    out = {"targets": sinkhorn(logits, 0.07), "kde": kde_loss(rows, 5.0, gather=True)}
    out["scaled"] = scaled_sinkhorn(logits, 0.07).dense()
    started = torch.full((3,), float(rank + 1))
    distributed.same_everywhere([started])
    out["started"] = started
    out["koleo"] = koleo_loss(rows, gather=True)
    out["centre"] = moved(share(data["logits"], rank, world))
    (out["kde"] + out["koleo"]).backward()
    assert rows.grad is not None
    out["rows"] = rows.grad / world  # as averaging over processes does
    return {name: value.detach() for name, value in (out | step(data["crops"], rank, world)).items()}


def moved(logits: torch.Tensor) -> torch.Tensor:
    centre = Centre(logits.shape[1], 0.9)
    centre.targets(logits, 0.07)
    centre.move()
    return centre.centre


def step(crops: torch.Tensor, rank: int, world: int) -> dict[str, torch.Tensor]:
    """Gradients of a whole micro-step without hidden patches, averaged over processes."""
    recipe = tiny_recipe(backbone={"drop_path": 0.0})
    student = build_student(recipe)
    mine = share(crops.transpose(0, 1), rank, world).transpose(0, 1)
    masks = torch.zeros(2 * mine.shape[1], 16, dtype=torch.bool)
    batch = Batch(mine.flatten(0, 1), None, masks)
    compute_losses(student, teacher_of(student), batch, 0.07, recipe.loss).total.backward()
    distributed.average_gradients(student, limit=4000)  # several buckets, and parameters larger than one
    return {
        name: torch.zeros_like(value) if value.grad is None else value.grad
        for name, value in student.named_parameters()
    }


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.FileStore(str(folder / "store"), WORLD)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD)
    torch.save(measure(rank, WORLD), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=worker, args=(rank, folder)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * WORLD
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def test_targets_are_those_of_all_rows_together(results: list[dict[str, Any]]) -> None:
    together = torch.cat([result["targets"] for result in results])
    torch.testing.assert_close(together, measure(0, 1)["targets"], atol=1e-6, rtol=1e-5)


def test_as_scalings_too(results: list[dict[str, Any]]) -> None:
    for result in results:
        torch.testing.assert_close(result["scaled"], result["targets"], atol=1e-6, rtol=1e-5)


def test_all_start_with_the_first_ones_tensors(results: list[dict[str, Any]]) -> None:
    assert [result["started"].tolist() for result in results] == [[1.0] * 3] * WORLD


def test_a_centre_follows_all_rows(results: list[dict[str, Any]]) -> None:
    for result in results:
        torch.testing.assert_close(result["centre"], measure(0, 1)["centre"])


@pytest.mark.parametrize("name", ["kde", "koleo"])
def test_regularizers_see_all_embeddings(results: list[dict[str, Any]], name: str) -> None:
    mean = sum(result[name] for result in results) / WORLD
    torch.testing.assert_close(mean, measure(0, 1)[name], atol=1e-5, rtol=1e-5)


def test_their_gradients_reach_every_process(results: list[dict[str, Any]]) -> None:
    together = torch.cat([result["rows"] for result in results])
    torch.testing.assert_close(together, measure(0, 1)["rows"], atol=1e-6, rtol=1e-4)


def test_averaged_gradients_are_those_of_one_process(results: list[dict[str, Any]]) -> None:
    alone = measure(0, 1)
    for name in alone:
        if "." in name:
            torch.testing.assert_close(results[0][name], alone[name], atol=2e-6, rtol=1e-3)
            torch.testing.assert_close(results[0][name], results[1][name])


def test_buckets_hold_everything_once_in_order() -> None:
    tensors = [torch.zeros(n) for n in (3, 2, 9, 1, 1)] + [torch.zeros(2, dtype=torch.float64)]
    found = list(distributed.buckets(tensors, 24))
    assert [[tensor.numel() for tensor in bucket] for bucket in found] == [[3, 2], [9], [1, 1], [2]]
    assert all(sum(tensor.nbytes for tensor in bucket) <= 24 or len(bucket) == 1 for bucket in found)
    assert list(distributed.buckets([], 24)) == []


def test_one_process_needs_no_group() -> None:
    value = torch.ones(3)
    assert (distributed.rank(), distributed.world(), distributed.active()) == (0, 1, False)
    assert distributed.gather(value[None]).shape == (1, 3)
    assert torch.equal(distributed.all_sum(value.clone()), value)
