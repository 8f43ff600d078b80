import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from midnight.config import Recipe, load_recipe, recipe_names
from midnight.errors import MidnightError
from midnight.ssl.budget import as_dict, budget_of, rates_of
from midnight.ssl.budget.cost import GPUS
from midnight.ssl.budget.fit import largest_batch, total_with
from midnight.ssl.budget.flops import crop_groups, flops_per_tile, hidden_patches
from midnight.ssl.budget.memory import Plan, all_tokens, block_activations, ends, fused, own_plan, plans
from midnight.ssl.budget.shape import measure
from midnight.ssl.budget.text import describe
from midnight.ssl.masking import step_masks
from midnight.ssl.model import backbone
from midnight.ssl.model.network import Network, build_student, teacher_of
from midnight.ssl.step import Batch, compute_losses, prepare
from tests.ssl.tiny import tiny_recipe

BACKBONES: dict[str, dict[str, Any]] = {
    "mlp": {"arch": "vit_small_patch14_dinov2", "drop_path": 0.0, "patch": 14},
    "registers, dropped": {"arch": "vit_small_patch14_reg4_dinov2", "drop_path": 0.4, "patch": 14},
    "swiglu, dropped": {"arch": "vit_giant_patch14_dinov2", "drop_path": 0.4, "patch": 14},
    "patch 8": {"arch": "vit_base_patch8_224", "drop_path": 0.25, "patch": 8},
}
BATCH = 4


def small_recipe(name: str, depth: int = 3, precision: str = "bfloat16") -> Recipe:
    values = dict(BACKBONES[name])
    patch = values.pop("patch")
    kwargs = {"embed_dim": 96, "depth": depth, "num_heads": 3, "patch_size": patch}
    return tiny_recipe(
        crops={"global_size": 6 * patch, "local_size": 3 * patch, "n_local": 4},
        backbone=values | {"kwargs": kwargs},
        heads={"prototypes": 256, "hidden": 64, "bottleneck": 32},
        training={"batch_size": BATCH, "precision": precision},
    )


def networks(recipe: Recipe) -> tuple[Network, Network]:
    student = build_student(recipe)
    return student.train(), teacher_of(student)


def batch_of(recipe: Recipe) -> Batch:
    crops = recipe.crops
    sizes = {"global_crops": (2, crops.global_size), "local_crops": (crops.n_local, crops.local_size)}
    raw = {
        name: torch.randint(0, 256, (BATCH, views, 3, size, size), dtype=torch.uint8)
        for name, (views, size) in sizes.items()
    }
    grid = (6, 6)
    masks = step_masks(0, 0, 0, 2 * BATCH, grid, recipe.loss.mask_probability, recipe.loss.mask_ratio)
    return prepare(raw, torch.from_numpy(masks), crops, torch.device("cpu"))


def counted(run: Any) -> float:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops() / BATCH


@pytest.mark.parametrize("name", BACKBONES)
def test_flops_are_those_that_torch_counts(name: str) -> None:
    recipe = small_recipe(name)
    (student, teacher), batch = networks(recipe), batch_of(recipe)
    formula = flops_per_tile(recipe, measure(recipe), hidden=int(batch.masks.sum()) / BATCH)

    def step() -> None:
        compute_losses(student, teacher, batch, 0.05, recipe.loss).total.backward()

    def teacher_only() -> None:
        features = teacher.backbone(batch.global_crops)
        teacher.dino_head(features.cls)
        teacher.ibot_head(features.patches[batch.masks])

    with torch.no_grad():
        assert counted(teacher_only) == pytest.approx(formula.teacher, rel=0.02)
    assert counted(step) == pytest.approx(formula.total, rel=0.02)


@pytest.mark.parametrize("name", [name for name in BACKBONES if BACKBONES[name]["drop_path"]])
def test_what_stochastic_depth_skips_is_what_would_be_done_without(name: str) -> None:
    recipe = small_recipe(name)
    shape = measure(recipe)
    whole = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, drop_path=0.0))
    flops, undropped = flops_per_tile(recipe, shape), flops_per_tile(whole, shape)
    assert undropped.skipped == 0
    assert flops.total + flops.skipped == pytest.approx(undropped.total)
    assert flops.skipped > 0.1 * undropped.total


def test_hidden_patches_are_as_many_as_masks_hide() -> None:
    recipe = small_recipe("mlp")
    masks = [step_masks(0, 0, step, 2 * BATCH, (6, 6), 0.5, (0.1, 0.5)) for step in range(200)]
    mean = sum(int(mask.sum()) for mask in masks) / len(masks) / BATCH
    assert hidden_patches(recipe, measure(recipe)) == pytest.approx(mean, rel=0.15)


def saved_bytes(recipe: Recipe) -> int:
    """What the student's backbone keeps for its backward pass, in bfloat16: every storage once, weights left out."""
    student, _ = networks(recipe)
    batch = batch_of(recipe)
    assert batch.local_crops is not None
    weights = {parameter.untyped_storage().data_ptr() for parameter in student.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and not is_weight_copy(tensor):
            kept[storage.data_ptr()] = storage
        return tensor

    shapes = {tuple(parameter.shape) for parameter in student.parameters()}

    def is_weight_copy(tensor: torch.Tensor) -> bool:
        return tuple(tensor.shape) in shapes or tuple(tensor.T.shape) in shapes if tensor.ndim == 2 else False

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        features = student.backbone([batch.global_crops, batch.local_crops], batch.masks)
    assert features[0].cls.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


# Blocks run fused in bfloat16, and plain in float16, whose numbers take as much.
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", BACKBONES)
def test_activations_are_those_that_autograd_keeps(name: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "FUSED_ON", {"cpu"})
    shallow, deep = (small_recipe(name, depth, precision) for depth in (2, 6))
    assert fused(deep) == (precision == "bfloat16")
    per_block = (saved_bytes(deep) - saved_bytes(shallow)) / 4
    assert per_block == pytest.approx(block_activations(deep, measure(deep)), rel=0.1)
    # Crops and output are alive as well, but not kept for the backward pass.
    pixels = BATCH * 3 * sum(count * size**2 for count, size in crop_groups(shallow))
    kept = ends(shallow, measure(shallow)) - 4 * pixels - 4 * 96 * all_tokens(shallow, measure(shallow))
    assert saved_bytes(shallow) - 2 * per_block == pytest.approx(kept, rel=0.25)


def test_parameters_are_those_of_the_real_networks() -> None:
    for name, shared, narrow in itertools.product(BACKBONES, (False, True), (None, 16)):
        recipe = small_recipe(name)
        heads = dataclasses.replace(recipe.heads, shared=shared, ibot_bottleneck=narrow)
        recipe = dataclasses.replace(recipe, heads=heads)
        shape, student = measure(recipe), build_student(recipe)
        assert shape.parameters == sum(parameter.numel() for parameter in student.parameters())
        assert len(shape.head_parameters) == (1 if shared else 2)
        assert len(set(shape.head_parameters)) == (2 if narrow and not shared else 1)


def test_measuring_leaves_the_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    measure(small_recipe("mlp"))
    assert torch.equal(torch.rand(1), expected)


def plan_of(recipe: Recipe, sharded: bool, recompute: bool) -> Plan:
    found = [each for each in plans(recipe, measure(recipe)) if (each.sharded, each.recompute) == (sharded, recompute)]
    assert len(found) == 1
    return found[0]


def test_the_giant_takes_what_the_design_says() -> None:
    recipe = load_recipe("openmidnight")
    budget = budget_of(recipe, rates_of("h100", 0.21))
    assert budget.shape.parameters == pytest.approx(1.235e9, rel=0.01)
    assert budget.flops.total == pytest.approx(5.2e12, rel=0.02)
    assert budget.flops.teacher == pytest.approx(1.2e12, rel=0.03)
    assert budget.cost.images_per_s == pytest.approx(40, rel=0.02)  # OpenMidnight's speed is 21 % MFU


@pytest.mark.parametrize("name", ["midnight-12k", "midnight-92k-392"])
def test_the_papers_batches_fit_80_gb_and_fsdp_takes_less(name: str) -> None:
    recipe = load_recipe(name)
    sharded, whole = plan_of(recipe, True, False), plan_of(recipe, False, False)
    assert sharded.total < whole.total < 80e9
    assert whole.parts["AdamW"] == 8 * measure(recipe).parameters
    assert sharded.parts["AdamW"] == pytest.approx(whole.parts["AdamW"] / recipe.training.gpus)
    assert sharded.parts["activations"] == whole.parts["activations"]
    assert plan_of(recipe, True, True).parts["activations"] < 0.25 * sharded.parts["activations"]


def test_measured_on_an_h200() -> None:
    """63.8 GB of torch's at batch 48 without checkpointing (benchmarks/results/2026-11-27-gpu.md).

    The plan has gradients and activations at once, which no moment has without accumulation.
    """
    values = {"gpus": 1, "batch_size": 48, "accumulation": 1, "sharding": "none", "activation_checkpointing": False}
    recipe = load_recipe("openmidnight", {"training": values})
    plan = plan_of(recipe, False, False)
    without = plan.total - plan.parts["reserve"] - plan.parts["gradients"]
    assert without == pytest.approx(63.8e9, rel=0.06)
    assert plan.total < 80e9


def test_gradients_stay_whole_while_they_are_accumulated_unsent() -> None:
    recipe = load_recipe("midnight-12k")
    at_once = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, accumulation=1))
    whole = 4 * measure(recipe).parameters
    assert plan_of(recipe, True, False).parts["gradients"] == pytest.approx(whole * 33 / 32)
    assert plan_of(at_once, True, False).parts["gradients"] == pytest.approx(whole / 32)


@pytest.mark.parametrize(("sharding", "gpus", "sharded"), [("none", 4, False), ("fsdp", 4, True), ("fsdp", 1, False)])
def test_the_recipes_own_plan(sharding: str, gpus: int, sharded: bool) -> None:
    training = {"sharding": sharding, "gpus": gpus, "activation_checkpointing": sharded, "compile": True}
    recipe = tiny_recipe(training=training)
    plan = own_plan(recipe, plans(recipe, measure(recipe)))
    assert (plan.sharded, plan.recompute) == (sharded, sharded)
    assert f"this recipe: {'FSDP × 4 +ckpt' if sharded else 'one GPU' if gpus == 1 else 'DDP'}," in describe(
        budget_of(recipe, rates_of("h100", 0.45))
    )


def test_one_gpu_has_no_sharded_plan_and_float32_no_copies() -> None:
    recipe = load_recipe("demo")
    assert [plan.sharded for plan in plans(recipe, measure(recipe))] == [False, False]
    assert plan_of(recipe, False, False).parts["weights' copies"] == 0


def test_cost_at_the_rates() -> None:
    recipe = small_recipe("mlp")
    budget = budget_of(recipe, rates_of("a100", 0.5, price=2.5, watts=300))
    seconds = 8 * BATCH * budget.flops.total / (312e12 * 0.5)
    assert budget.cost.tiles == 8 * BATCH
    assert budget.cost.gpu_hours == pytest.approx(seconds / 3600)
    assert budget.cost.usd == pytest.approx(2.5 * seconds / 3600)
    assert budget.cost.kwh == pytest.approx(0.3 * seconds / 3600)
    slower = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, precision="float32"))
    assert budget_of(slower, rates_of("a100", 0.5)).cost.images_per_s < 0.1 * budget.cost.images_per_s


@pytest.mark.parametrize(("arguments", "named"), [((0.0,), "--mfu"), ((1.1,), "--mfu"), ((0.5, -1.0), "--price")])
def test_rates_out_of_range(arguments: tuple[float, ...], named: str) -> None:
    with pytest.raises(MidnightError, match=named):
        rates_of("h100", *arguments)


def test_blocks_without_a_formula_are_named() -> None:
    kwargs = {"patch_size": 7, "embed_dim": 24, "depth": 1, "num_heads": 2}
    recipe = tiny_recipe(backbone={"arch": "vit_small_patch16_18x2_224", "kwargs": kwargs})
    with pytest.raises(MidnightError, match=r"no budget for 'vit_small_patch16_18x2_224'"):
        measure(recipe)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_has_a_budget(name: str) -> None:
    recipe = load_recipe(name)
    budget = budget_of(recipe, rates_of("h200", 0.45))
    text, values = describe(budget), as_dict(budget)
    assert all(line.startswith("#") for line in text.splitlines())
    assert f"{values['parameters']['student'] / 1e6:,.1f} M" in text
    assert all(sum(plan["parts"].values()) == pytest.approx(plan["total"]) for plan in values["memory_per_gpu"])
    for plan in values["memory_per_gpu"]:
        assert plan["fits"] == {gpu.name: plan["total"] <= gpu.memory for gpu in GPUS.values()}
    assert values["cost"]["tiles"] == recipe.training.iterations * recipe.training.batch_size * recipe.training.gpus
    assert budget.flops.backward == pytest.approx(2 * budget.flops.forward, rel=0.05)


@pytest.mark.parametrize("name", ["vits-1gpu", "vitb-24gb"])
def test_recipes_for_one_gpu_fit_24_gb_with_a_tenth_to_spare(name: str) -> None:
    recipe = load_recipe(name)
    budget = budget_of(recipe, rates_of("rtx4090", 0.45))
    assert recipe.training.gpus == 1 and recipe.backbone.init == "pretrained"
    assert budget.plan.total <= 0.9 * 24e9


@pytest.mark.parametrize("recompute", [False, True])
def test_the_largest_batch_fits_and_one_more_does_not(recompute: bool) -> None:
    recipe = load_recipe("vitb-24gb")
    shape = measure(recipe)
    batch = largest_batch(recipe, shape, 24e9, recompute)
    assert total_with(recipe, shape, batch, recompute) <= 24e9 < total_with(recipe, shape, batch + 1, recompute)
    assert largest_batch(recipe, shape, 1e9, recompute) == 0


def test_memory_of_another_gpu_and_the_batch_are_said() -> None:
    budget = budget_of(load_recipe("vits-1gpu"), rates_of("a10", 0.3, memory=40))
    text = describe(budget)
    assert "largest batch on A10, 40 GB: " in text and "here 64" in text
    assert "batch           256 = 64 tiles × 1 GPU × accumulation 4" in text
    assert "peak lr         0.000175 = 0.00035 · √(256/1024)" in text
    assert as_dict(budget)["batch"]["effective"] == 256
    with pytest.raises(MidnightError, match="--memory: 0 GB"):
        rates_of("a10", 0.3, memory=0)


@pytest.mark.parametrize(("name", "words"), [("local-quick", "minutes on two CPU cores"), ("midnight-12k", "days on")])
def test_the_time_without_a_gpu_is_said(name: str, words: str) -> None:
    line = describe(budget_of(load_recipe(name), rates_of("h100", 0.45))).splitlines()[-1]
    assert line.startswith("# without a GPU   about ") and words in line
