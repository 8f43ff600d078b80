import json
import logging
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from midnight.config import HsvFilter, Recipe
from midnight.ssl.model.backbone import Features
from midnight.ssl.model.network import build_student
from midnight.ssl.monitor import probe as probing
from midnight.ssl.monitor.label_free import MEASURES as LABEL_FREE
from midnight.ssl.monitor.probe import FILE, TRAIN, Probe, draw_tiles, open_probe
from midnight.ssl.monitor.probe_labels import plan_labels
from tests.ssl.probe_slides import probe_recipe, write_cohort

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two cohorts that differ in the size of their spots."""
    folder = tmp_path_factory.mktemp("probe")
    fine = write_cohort(folder / "fine", {"a": False, "b": False, "c": False})
    return {"fine": fine, "coarse": write_cohort(folder / "coarse", {"f": True, "g": True, "h": True})}


def opened(cohorts: dict[str, Path], output: Path, **training: Any) -> Probe:
    found = open_probe(probe_recipe(**training), cohorts, {}, output, CPU)
    assert found is not None
    return found


class Edges(nn.Module):
    """An embedding that tells fine from coarse spots: the mean of steps between neighbouring pixels, by direction."""

    def forward(self, images: Tensor) -> Features:
        steps = torch.stack([images.diff(dim=-1).abs().mean((1, 2, 3)), images.diff(dim=-2).abs().mean((1, 2, 3))], 1)
        rows = torch.cat([steps - 0.05, torch.ones(len(images), 1) * 0.02], dim=1)
        return Features(rows, rows, rows)


class Blind(nn.Module):
    def forward(self, images: Tensor) -> Features:
        rows = torch.ones(len(images), 4)
        return Features(rows, rows, rows)


def test_an_embedding_that_sees_the_labels_is_told_from_a_blind_one(cohorts: dict[str, Path], tmp_path: Path) -> None:
    probe = opened(cohorts, tmp_path)
    seen, blind = probe.measure(Edges()), probe.measure(Blind())
    assert seen["knn"] > 0.9
    assert blind["knn"] == 0.5
    assert blind["probe_rank"] == pytest.approx(1, abs=1e-5)
    counts = json.loads((tmp_path / FILE).read_text())
    assert (counts["labels"], counts["names"]) == ("project", ["fine", "coarse"][::-1])
    assert counts["train"] + counts["test"] == 40 and min(counts["train"], counts["test"]) > 8


def test_no_slide_is_on_both_sides_and_labels_are_right(cohorts: dict[str, Path], tmp_path: Path) -> None:
    recipe = probe_recipe(probe_tiles=60)
    plan = plan_labels(cohorts, {}, recipe.tiles, recipe.seed)
    tiles = draw_tiles(recipe, plan)
    assert tuple(tiles.images.shape) == (60, 1, 3, 28, 28) and tiles.images.dtype == torch.uint8
    train, test = [
        {record.slide_id for number in (side, 2 + side) for record in plan.sources[number]} for side in (0, 1)
    ]
    assert train.isdisjoint(test) and train | test == set("abcfgh")
    # of coarse spots neighbouring pixels are mostly the same; the white glass beside tissue is left out
    flat = (tiles.images.float().diff(dim=-1).abs() < 3).float().mean((1, 2, 3, 4))
    tissue = (tiles.images.amin(2) < 225).all(-1).all(-1).squeeze(1)
    assert flat[tissue & (tiles.labels == 0)].min() > flat[tissue & (tiles.labels == 1)].max()
    assert all((tissue & (tiles.labels == label)).sum() > 8 for label in (0, 1))


def test_without_labels_there_is_no_accuracy(cohorts: dict[str, Path], tmp_path: Path) -> None:
    probe = open_probe(probe_recipe(probe_tiles=60), {"fine": cohorts["fine"]}, {}, tmp_path, CPU)
    assert probe is not None and not probe.labelled
    found = probe.measure(Edges())
    assert set(found) == {*LABEL_FREE}
    assert all(np.isfinite(value) for name, value in found.items() if name != "probe_decay")  # of 3 numbers
    assert set(probe.sides.tolist()) == {TRAIN} and len(probe.slides.unique()) == 3
    facts = json.loads((tmp_path / FILE).read_text())
    assert facts == {"labels": "none", "names": [], "train": 60, "test": 0, "slides": 3}


def test_each_tile_is_there_in_two_stains(cohorts: dict[str, Path]) -> None:
    recipe = probe_recipe(probe_tiles=60)
    tiles = draw_tiles(recipe, plan_labels(cohorts, {}, recipe.tiles, recipe.seed))
    assert tiles.restained.shape == tiles.images.shape and tiles.restained.dtype == torch.uint8
    grey = [images.float().mean((1, 2)).flatten(1) for images in (tiles.images, tiles.restained)]
    changes = (tiles.images.float() - tiles.restained.float()).mean((1, 3, 4))
    assert (changes.abs().amax(dim=1) > 2).float().mean() > 0.9, "the stain differs"
    assert len(changes.round().unique(dim=0)) > 50, "each tile has its own"
    alike = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(*grey, strict=True)]
    assert np.nanmedian(alike) > 0.9, "the tissue is the same"


def test_the_same_recipe_gives_the_same_tiles_and_another_seed_does_not(cohorts: dict[str, Path]) -> None:
    recipe = probe_recipe()
    plan = plan_labels(cohorts, {}, recipe.tiles, 0)
    first, again, other = (draw_tiles(one, plan) for one in (recipe, recipe, replace(recipe, seed=1)))
    assert torch.equal(first.images, again.images) and torch.equal(first.sides, again.sides)
    assert not torch.equal(first.images, other.images)


def test_the_probes_tiles_are_not_those_of_training(cohorts: dict[str, Path]) -> None:
    """The same generators with the recipe's own seed would draw training's tiles."""
    from midnight.tiles.draw.source import OnlineSource

    recipe = probe_recipe()
    source = OnlineSource({"0": (cohorts["fine"], 1.0)}, recipe.tiles, recipe.seed)
    trained = {(tile.slide, tile.x, tile.y) for tile in source.tiles(range(40))}
    salted = OnlineSource({"0": (cohorts["fine"], 1.0)}, recipe.tiles, recipe.seed + probing.SEED)
    assert len(trained & {(tile.slide, tile.x, tile.y) for tile in salted.tiles(range(40))}) < 5


def test_measuring_leaves_generators_mode_and_weights_alone(cohorts: dict[str, Path], tmp_path: Path) -> None:
    probe = opened(cohorts, tmp_path)
    student = build_student(probe.recipe)
    student.train()
    before = (
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),
        {n: v.clone() for n, v in student.state_dict().items()},
    )
    results = [probe.measure(student.backbone) for _ in range(2)]
    assert results[0] == results[1]  # stochastic depth is off inside
    assert all(module.training for module in student.modules())
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert all(torch.equal(before[2][name], value) for name, value in student.state_dict().items())
    assert not any(parameter.grad is not None for parameter in student.parameters())


def test_batches_of_another_size_give_the_same(cohorts: dict[str, Path], tmp_path: Path) -> None:
    backbone = build_student(probe_recipe()).backbone.eval()
    sizes: list[int] = []
    backbone.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    ranks = [opened(cohorts, tmp_path, batch_size=size).measure(backbone)["probe_rank"] for size in (3, 20)]
    assert sizes == [6] * 14 + [40] * 2  # in two stains
    assert ranks[0] == pytest.approx(ranks[1], rel=1e-4)


def test_before_the_first_step_random_init_is_the_reference(cohorts: dict[str, Path], tmp_path: Path) -> None:
    probe = opened(cohorts, tmp_path)
    student = build_student(probe.recipe)
    start = probe.start(student.backbone)
    assert start["knn"] == start["knn_random_init"]
    backbone = replace(probe.recipe.backbone, init="pretrained")
    probe.recipe = replace(probe.recipe, backbone=backbone)
    state = torch.get_rng_state()
    pretrained = probe.start(Edges())
    assert pretrained["knn"] > 0.9
    assert pretrained["knn_random_init"] == start["knn"]
    assert torch.equal(state, torch.get_rng_state())


def test_embeddings_that_are_not_finite_give_nan(cohorts: dict[str, Path], tmp_path: Path) -> None:
    class Broken(Blind):
        def forward(self, images: Tensor) -> Features:
            rows = torch.full((len(images), 4), torch.nan)
            return Features(rows, rows, rows)

    assert all(np.isnan(value) for value in opened(cohorts, tmp_path).measure(Broken()).values())


def test_when_it_is_due(cohorts: dict[str, Path], tmp_path: Path) -> None:
    probe = opened(cohorts, tmp_path, probe_every=3)
    assert [step for step in range(1, 9) if probe.due(step)] == [3, 6, 8]


def test_without_slides_or_wish_there_is_none(cohorts: dict[str, Path], tmp_path: Path) -> None:
    assert open_probe(probe_recipe(probe_every=0), cohorts, {}, tmp_path, CPU) is None
    assert open_probe(probe_recipe(), {}, {}, tmp_path, CPU) is None
    assert list(tmp_path.iterdir()) == []


def strict(recipe: Recipe) -> Recipe:
    return replace(recipe, tiles=replace(recipe.tiles, hsv_filter=HsvFilter(hue=(10, 12))))


def test_slides_that_give_no_tile_cost_the_probe_only(
    cohorts: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert open_probe(strict(probe_recipe()), cohorts, {}, tmp_path, CPU) is None
        two = [replace(probe_recipe(probe_tiles=2), seed=seed) for seed in range(6)]
        assert None in [open_probe(recipe, cohorts, {}, tmp_path, CPU) for recipe in two]
    lines = [record.getMessage() for record in caplog.records if record.name == "midnight.ssl.monitor.probe"]
    assert lines[0].startswith("no probe while training: no tile was accepted on 64 slides")
    assert lines[1].endswith("too few tiles on one side; raise training.probe_tiles")


def measure_in(rank: int, folder: Path, cohorts: dict[str, Path]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    recipe = probe_recipe(probe_tiles=41)
    probe = open_probe(recipe, cohorts, {}, folder, CPU)
    assert probe is not None
    found = probe.measure(build_student(recipe).backbone)
    without = open_probe(strict(recipe) if rank == 1 else recipe, cohorts, {}, folder, CPU)
    (folder / f"{rank}.json").write_text(json.dumps([found, len(probe.images), without is None]))
    dist.destroy_process_group()


def test_two_processes_share_the_tiles_and_agree_with_one(cohorts: dict[str, Path], tmp_path: Path) -> None:
    """Where one of them has no tiles, none probes."""
    alone = opened(cohorts, tmp_path, probe_tiles=41)
    expected = alone.measure(build_student(alone.recipe).backbone)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=measure_in, args=(rank, tmp_path, cohorts)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    for rank in range(2):
        found, tiles, none = json.loads((tmp_path / f"{rank}.json").read_text())
        assert (tiles, none) == (21, True)
        assert found == {name: pytest.approx(value, rel=1e-3) for name, value in expected.items()}
