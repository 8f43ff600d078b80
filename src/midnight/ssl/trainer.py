"""The training loop: batches in, a teacher out; killed at any moment, it goes on where it was."""

import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from tqdm import tqdm

from midnight.atomic import write_text
from midnight.config import Mlflow, Recipe
from midnight.errors import MidnightError
from midnight.ssl import distributed, runtime
from midnight.ssl.checkpoint import Checkpoint, Checkpoints
from midnight.ssl.export import HEADS, export_teacher, save_weights
from midnight.ssl.identity import resolved_config, run_key
from midnight.ssl.loader import Batches, Loader, tile_loader, tile_source
from midnight.ssl.masking import step_masks
from midnight.ssl.metrics import MetricsFile, entropy, mean_cosine, prototype_entropy
from midnight.ssl.network import build_student, teacher_of, update_teacher
from midnight.ssl.optimizer import apply_schedule, build_optimizer, clip_gradients
from midnight.ssl.schedules import Values, values_at
from midnight.ssl.step import Losses, compute_losses, prepare
from midnight.ssl.tracking import Tracker
from midnight.ssl.weights import initialise, load_heads
from midnight.tiles.device import DeviceAugment
from midnight.tiles.quarantine import FILE as QUARANTINED

log = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    cohorts: Mapping[str, tuple[Path, float]],
    output: Path,
    init_from: Path | None,
    mlflow: Mlflow,
    tracking_dir: Path,
    data: str,
    loader: Loader | None = None,
    drawn: Path | None = None,
) -> None:
    """Train a run to its end, from the newest good checkpoint of the same configuration if there is one.

    Writes below `output`: config.yaml, metrics.jsonl, checkpoints/step_*/ and, at the end, teacher.safetensors,
    model.json and heads.safetensors (what a post-training goes on with). Works alike in one process and under an
    initialised process group; who started it does not matter.

    Args:
        recipe: everything that the run depends on besides the slides.
        cohorts: index of slides and share of the tiles, by name.
        output: the run's folder.
        init_from: folder of the run that `backbone.init: run:NAME` names.
        mlflow: tracking server.
        tracking_dir: for the local sqlite file, where no server is named.
        data: `real` or `demo`, kept in model.json.
        loader: batches from a micro-step on; tiles of the cohorts if None.
        drawn: index of the tiles drawn beforehand, for a recipe with `tiles.predrawn`.

    Raises:
        MidnightError: the recipe can't be run, the data end, the disk is full, or losses stay non-finite.
    """
    output = Path(output)
    source = None if loader else tile_source(recipe, cohorts, drawn)
    runtime.check_processes(recipe.training, recipe.name)
    config = resolved_config(recipe, cohorts, init_from, data)
    key = run_key(config)
    device = runtime.pick_device()
    with runtime.prepared(device, recipe.training.workers):
        trainer = Trainer(recipe, output, key, device, init_from)
        tracker = None
        if distributed.rank() == 0:
            write_text(output / "config.yaml", yaml.safe_dump(config | {"hash": key}, sort_keys=False))
            tracker = Tracker(mlflow, Path(tracking_dir), output, config, resumed=trainer.step > 0)
        status = "FAILED"
        try:
            trainer.run(loader or tile_loader(recipe, cohorts, output / QUARANTINED, source), tracker)
            inputs = {name: index for name, (index, _) in cohorts.items()}
            trainer.export(data, inputs | ({"predrawn tiles": drawn} if drawn else {}))
            status = "FINISHED"
        finally:
            if tracker is not None:
                tracker.close(status)


class Trainer:
    """Student, teacher, optimizer and counters of one run."""

    def __init__(self, recipe: Recipe, output: Path, key: str, device: torch.device, init_from: Path | None) -> None:
        self.recipe, self.output, self.device = recipe, output, device
        self.checkpoints = Checkpoints(output / "checkpoints", key, recipe.training.keep_checkpoints)
        self.student = build_student(recipe)
        on_device = recipe.training.augment == "device"
        self.augment = DeviceAugment(recipe.crops, recipe.tiles.hed_sigma, recipe.seed) if on_device else None
        self.step = 0  # micro-steps done
        self.skipped = 0  # optimizer steps left out, in all and since the last good one
        self.consecutive = 0
        self.seconds = 0.0
        self.healthy = True  # no non-finite loss since the last optimizer step
        saved = self._newest()
        if saved is None:
            initialise(self.student.backbone, recipe.backbone, recipe.crops.global_size, init_from)
            load_heads(self.student, init_from)
        self.teacher = teacher_of(self.student).to(device)
        self.student.to(device).train()
        self.optimizer = build_optimizer(self.student, recipe.optimizer)
        if saved is not None:
            self._restore(saved.step, saved.tensors, saved.state)

    def run(self, loader: Loader, tracker: Tracker | None) -> None:
        """All micro-steps that are left."""
        training = self.recipe.training
        leader = distributed.rank() == 0
        metrics = MetricsFile(self.output / "metrics.jsonl", self.step) if leader else None
        if self.step >= training.iterations:
            return
        bar = self._bar()
        batches = iter(self._batches(loader))
        logged, clock = self.step, time.monotonic()
        while self.step < training.iterations:
            values = values_at(self.recipe, self.step, distributed.world())
            losses = self.micro_step(next(batches), values)
            self.step += 1
            boundary = self.step % training.accumulation == 0 or self.step == training.iterations
            norm = self.optimizer_step(values) if boundary else math.nan
            bar.update()
            if self.step % training.log_every == 0 or self.step in (1, training.iterations):
                now = time.monotonic()
                self.seconds, rate = self.seconds + now - clock, (self.step - logged) / max(now - clock, 1e-9)
                logged, clock = self.step, now
                record = self.record(losses, values, norm, rate * training.batch_size * distributed.world())
                if metrics is not None:
                    metrics.append(record)
                if tracker is not None:
                    tracker.log(self.step, record)
                bar.set_postfix_str(f"{record['images_per_s']:.1f} images/s, loss {record['loss']:.3f}")
            if boundary and self._checkpoint_due():
                self.save()
        bar.close()

    def micro_step(self, raw: Mapping[str, Tensor], values: Values) -> Losses:
        """Forward and backward of one batch; gradients add up until `optimizer_step`."""
        recipe = self.recipe
        runtime.seed_step(recipe.seed, self.step)
        if self.augment is not None:
            raw = self.augment(raw["tiles"].to(self.device, non_blocking=True), raw["index"])
        batch = prepare(raw, self._masks(len(raw["global_crops"])), recipe.crops, self.device)
        with runtime.autocast(self.device, recipe.training):
            losses = compute_losses(self.student, self.teacher, batch, values.teacher_temperature, recipe.loss)
        # One process's non-finite loss makes the sum non-finite everywhere, so that all skip the same step.
        if torch.isfinite(distributed.all_sum(losses.total.detach().clone())):
            (losses.total / recipe.training.accumulation).backward()
        else:
            self.healthy = False
        return losses

    def optimizer_step(self, values: Values) -> float:
        """Clip, step, update the teacher; or skip, where a loss or gradient was not finite.

        Returns:
            Norm of the gradients before clipping.

        Raises:
            MidnightError: as many consecutive steps as the recipe allows were skipped.
        """
        norm = math.nan
        if self.healthy:
            distributed.average_gradients(self.student)
            norm = float(clip_gradients(self.student, self.recipe.optimizer.clip_grad))
        if math.isfinite(norm):
            apply_schedule(self.optimizer, values)
            self.optimizer.step()
            update_teacher(self.student, self.teacher, values.momentum)
            self.consecutive = 0
        else:
            self._skip()
        self.optimizer.zero_grad(set_to_none=True)
        self.healthy = True
        return norm

    def _skip(self) -> None:
        self.skipped += 1
        self.consecutive += 1
        log.warning("step %d: loss or gradient is not finite; optimizer step skipped", self.step)
        if self.consecutive >= max(1, self.recipe.training.max_nonfinite):
            last = self.checkpoints.paths()[-1] if self.checkpoints.paths() else "none"
            raise MidnightError(
                f"{self.output}: {self.consecutive} consecutive non-finite losses up to step {self.step}; stopped; "
                f"last good checkpoint, kept: {last}; lower optimizer.base_lr or look at the data, then run again"
            )

    def record(self, losses: Losses, values: Values, norm: float, images_per_s: float) -> dict[str, Any]:
        """One line of metrics.jsonl."""
        temperature = self.recipe.loss.student_temperature
        views = losses.targets.cls.chunk(2)
        return {
            "step": self.step,
            "loss": float(losses.total),
            "dino": float(losses.dino),
            "ibot": float(losses.ibot),
            "regularizer": float(losses.regularizer),
            "lr": values.lr,
            "weight_decay": values.weight_decay,
            "momentum": values.momentum,
            "teacher_temperature": values.teacher_temperature,
            "grad_norm": norm,
            "mean_cosine": float(mean_cosine(views[0])),
            "entropy": float(entropy(losses.targets.dino)),
            "prototype_entropy": float(prototype_entropy(losses.student_logits, temperature)),
            "skipped": self.skipped,
            "images_per_s": images_per_s,
            "seconds": self.seconds,
        }

    def save(self) -> None:
        """Write a checkpoint of everything that the rest of the run depends on."""
        if distributed.rank() == 0:
            networks = {"student": self.student, "teacher": self.teacher}
            tensors = {
                f"{role}.{name}": value
                for role, network in networks.items()
                for name, value in network.state_dict().items()
            }
            counters = {"skipped": self.skipped, "consecutive": self.consecutive, "seconds": self.seconds}
            self.checkpoints.save(self.step, tensors, {"optimizer": self.optimizer.state_dict(), **counters})
        distributed.barrier()

    def export(self, data: str, inputs: Mapping[str, Path]) -> None:
        """Write the teacher, and its heads for a post-training."""
        if distributed.rank() == 0:
            heads = {
                name: value for name, value in self.teacher.state_dict().items() if not name.startswith("backbone.vit.")
            }
            save_weights(self.output / HEADS, heads)
            export_teacher(self.teacher.backbone.vit, self.recipe, self.output, self.step, data, inputs)
        distributed.barrier()

    def _newest(self) -> Checkpoint | None:
        """The checkpoint to go on from; the first process moves damaged or foreign ones away before others look."""
        first = self.checkpoints.newest() if distributed.rank() == 0 else None
        distributed.barrier()
        return first if distributed.rank() == 0 else self.checkpoints.newest()

    def _restore(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        for role, network in {"student": self.student, "teacher": self.teacher}.items():
            prefix = f"{role}."
            network.load_state_dict(
                {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            )
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = step
        self.skipped, self.consecutive, self.seconds = state["skipped"], state["consecutive"], state["seconds"]
        log.info("resumed from step %d of %s", step, self.checkpoints.folder)

    def _masks(self, tiles: int) -> Tensor:
        loss, side = self.recipe.loss, self.recipe.crops.global_size // self.student.backbone.patch_size
        rank, grid = distributed.rank(), (side, side)
        masks = step_masks(self.recipe.seed, rank, self.step, 2 * tiles, grid, loss.mask_probability, loss.mask_ratio)
        return torch.from_numpy(masks)

    def _batches(self, loader: Loader) -> Batches:
        yield from loader(self.step)
        raise MidnightError(f"{self.output}: the data ended at step {self.step} of {self.recipe.training.iterations}")

    def _checkpoint_due(self) -> bool:
        """At the first optimizer step after each multiple of `checkpoint_every`, and at the end.

        Not while losses are non-finite, so that the older, good checkpoints stay.
        """
        training = self.recipe.training
        passed = (self.step - training.accumulation) // training.checkpoint_every
        due = self.step // training.checkpoint_every > passed and self.consecutive == 0
        return due or self.step >= training.iterations

    def _bar(self) -> "tqdm[Any]":
        return tqdm(
            total=self.recipe.training.iterations,
            initial=self.step,
            desc=f"train {self.recipe.name}",
            unit="step",
            disable=distributed.rank() != 0,
            mininterval=0.5 if sys.stderr.isatty() else 10,
        )
