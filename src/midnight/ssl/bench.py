"""How fast this machine makes a recipe's training steps: on random crops, without slides, in a few minutes."""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from midnight.config import Recipe
from midnight.errors import MidnightError
from midnight.ssl import runtime
from midnight.ssl.budget.cost import GPUS, Gpu
from midnight.ssl.budget.flops import flops_per_tile
from midnight.ssl.budget.memory import own_plan, plans
from midnight.ssl.budget.shape import measure
from midnight.ssl.masking import step_masks
from midnight.ssl.model.float8 import use_float8
from midnight.ssl.model.network import build_student, teacher_of
from midnight.ssl.optimizer import build_optimizer
from midnight.ssl.schedules import values_at
from midnight.ssl.step import Losses, compute_losses, prepare
from midnight.ssl.update import update_of

WARM = 3
"""Steps before the first that counts: memory is taken, kernels are compiled."""
KERNELS = 10
"""Of the longest that are named."""
AT = 1000
"""Micro-step whose learning rate and momentum are taken: no zero, which would leave something out."""


class Stepper:
    """Student, teacher and optimizer of a recipe in one process, and one micro-step after the other."""

    def __init__(self, recipe: Recipe, device: torch.device, init_on: torch.device | None = None) -> None:
        """Random weights, made on `init_on` if given."""
        self.recipe, self.device = recipe, device
        with torch.device(init_on or device):
            student = build_student(recipe)
        if recipe.training.precision == "float8":
            use_float8(cast(nn.Module, student.backbone.vit.blocks), device)
        self.student = student.to(device).train()
        self.teacher = teacher_of(self.student, recipe.loss).to(device)
        self.optimizer = build_optimizer(self.student, recipe.optimizer)
        self.update = update_of(self.student, self.teacher, self.optimizer, recipe.optimizer)
        self.crops = random_crops(recipe, pinned=device.type == "cuda")
        self.number = 0
        self.dispatched: list[float] = []
        self.masks: Tensor | None = None

    def losses(self) -> Losses:
        """Forward and backward of one micro-step."""
        runtime.seed_step(0, self.number)
        masks = self._masks(self.number) if self.masks is None else self.masks
        batch = prepare(self.crops, masks, self.recipe.crops, self.device)
        with runtime.autocast(self.device, self.recipe.training):
            found = compute_losses(self.student, self.teacher, batch, 0.07, self.recipe.loss)
        found.total.backward()
        self.masks = self._masks(self.number + 1)  # while the GPU is still at work, as the trainer does
        return found

    def step(self) -> None:
        """Losses, clipping, AdamW, teacher; waits for the device once, as the trainer does."""
        start = time.perf_counter()
        values = values_at(self.recipe, min(AT, self.recipe.training.iterations - 1), 1)
        self.losses()
        norm = self.update.clip(values)
        self.dispatched.append(time.perf_counter() - start)
        norm.item()
        self.update.apply(values)
        self.optimizer.zero_grad(set_to_none=True)
        self.number += 1

    def tflop_per_image(self) -> float:
        """Arithmetic of matrix products and attention, as `midnight config show` counts it."""
        return flops_per_tile(self.recipe, measure(self.recipe)).total / 1e12

    def _masks(self, number: int) -> Tensor:
        loss, crops = self.recipe.loss, 2 * len(self.crops["global_crops"])
        side = self.recipe.crops.global_size // self.student.backbone.patch_size
        return torch.from_numpy(step_masks(0, 0, number, crops, (side, side), loss.mask_probability, loss.mask_ratio))


def random_crops(recipe: Recipe, pinned: bool) -> dict[str, Tensor]:
    """A loader's batch of noise."""
    crops, generator = recipe.crops, torch.Generator().manual_seed(0)

    def noise(views: int, side: int) -> Tensor:
        size = (recipe.training.batch_size, views, 3, side, side)
        made = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
        return made.pin_memory() if pinned else made

    return {"global_crops": noise(2, crops.global_size), "local_crops": noise(crops.n_local, crops.local_size)}


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(stepper: Stepper, steps: int, warm: int = WARM) -> dict[str, Any]:
    """Milliseconds of a step and of its dispatch, images/s, TFLOP/s; on a GPU GB of torch's at most.

    Args:
        stepper: whose steps.
        steps: that count.
        warm: before them.
    """
    for _ in tqdm(range(warm), desc="first steps", unit="step", leave=False):
        stepper.step()
    synchronise(stepper.device)
    stepper.dispatched.clear()
    clocks = [time.perf_counter()]
    for _ in tqdm(range(steps), desc="steps", unit="step", leave=False):
        stepper.step()
        clocks.append(time.perf_counter())
    synchronise(stepper.device)
    whole = (time.perf_counter() - clocks[0]) / steps
    each = [after - before for before, after in itertools.pairwise(clocks)]
    rate = len(stepper.crops["global_crops"]) / whole
    row: dict[str, Any] = {
        "ms": round(whole * 1e3, 1),
        "dispatch_ms": round(statistics.median(stepper.dispatched) * 1e3, 1),
        "images_per_s": round(rate, 2),
        "spread": round((max(each) - min(each)) / whole, 3),
        "tflops": round(rate * stepper.tflop_per_image(), 2),
    }
    if stepper.device.type == "cuda":
        row["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 1)
    return row


def longest(step: Callable[[], object], device: torch.device, count: int, of_cpu: bool = False) -> list[dict[str, Any]]:
    """What takes most of a step, by its own time: kernels of a GPU, or else operations of the CPU.

    Args:
        step: makes one.
        device: where.
        count: how many are named, at most.
        of_cpu: operations of the CPU also where there is a GPU.

    Returns:
        name, calls, ms, and share of all.
    """
    gpu = device.type == "cuda" and not of_cpu
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as record:
        step()
        synchronise(device)
    events = [e for e in record.key_averages() if not gpu or e.device_type == torch.autograd.DeviceType.CUDA]
    times = [(float(e.self_device_time_total if gpu else e.self_cpu_time_total) / 1e3, e) for e in events]
    times = [(ms, e) for ms, e in times if not e.key.startswith("Optimizer.")]  # marks around what is counted already
    total = sum(ms for ms, _ in times) or 1.0
    times.sort(key=lambda each: -each[0])
    return [
        {"name": e.key[:60], "calls": int(e.count), "ms": round(ms, 2), "share": round(ms / total, 4)}
        for ms, e in times[:count]
    ]


def known_gpu(device: torch.device) -> Gpu | None:
    """The one of `GPUS` that this device is."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device).lower().replace(" ", "")
    longest_first = sorted(GPUS, key=len, reverse=True)  # an A100 is no A10
    return next((GPUS[key] for key in longest_first if key in name), None)


def utilisation(tflops: float, precision: str, device: torch.device) -> float | None:
    """Share of the data sheet's peak in this precision; None for a device that is not in `GPUS`."""
    gpu = known_gpu(device)
    return None if gpu is None else round(tflops * 1e12 / gpu.peak(precision), 3)


def bench(recipe: Recipe, steps: int) -> dict[str, Any]:
    """A recipe's steps on this machine, on one GPU or the CPU, with its own batch.

    Raises:
        MidnightError: they do not fit into the GPU's memory.
    """
    alone = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, gpus=1, sharding="none"))
    device = runtime.pick_device()
    plan = own_plan(alone, plans(alone, measure(alone)))
    with runtime.prepared(device, 0):
        try:
            stepper = Stepper(alone, device)
            row = timed(stepper, steps)
            kernels = longest(stepper.step, device, KERNELS)
        except torch.cuda.OutOfMemoryError as error:
            raise MidnightError(
                f"recipe {recipe.name}: a batch of {recipe.training.batch_size} does not fit into this GPU (planned: "
                f"{plan.total / 1e9:.0f} GB); give a smaller --batch, or set training.activation_checkpointing: true"
            ) from error
    about = {"recipe": recipe.name, "batch": recipe.training.batch_size, "blocks": _blocks(stepper)}
    about["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    share = utilisation(row["tflops"], recipe.training.precision, device)
    return about | row | {"utilisation": share, "planned_gb": round(plan.total / 1e9, 1), "kernels": kernels}


def _blocks(stepper: Stepper) -> str:
    backbone = stepper.student.backbone
    if backbone.compiled:
        return "compiled"
    return "fused" if backbone.fuse and stepper.device.type == "cuda" else "plain"


def text(found: Mapping[str, Any]) -> str:
    """What `bench` found, for people."""
    share = "" if found["utilisation"] is None else f", {found['utilisation']:.0%} of the data sheet's"
    lines = [
        f"{found['recipe']} on one {found['device']}: batch {found['batch']}, {found['blocks']} blocks",
        f"step        {found['ms']:,} ms (spread {found['spread']:.0%}), dispatched in {found['dispatch_ms']:,} ms",
        f"speed       {found['images_per_s']:,} images/s",
        f"arithmetic  {found['tflops']:,} TFLOP/s{share}",
    ]
    if "peak_gb" in found:
        lines.append(f"memory      {found['peak_gb']} GB of torch's; planned {found['planned_gb']} GB, with a reserve")
    lines += ["", "the longest of one step, ms"]
    lines += [f"{kernel['ms']:>9.2f}  {kernel['calls']:>5} × {kernel['name']}" for kernel in found["kernels"]]
    return "\n".join(lines)
