"""The training loop: batches in, a teacher out; killed at any moment, it goes on where it was.

On a CPU a resumed run has the same losses, bit for bit, on the same kind of processor with as many threads; elsewhere
sums round differently, as they do on GPUs.

Processes meet in the losses, once per optimizer step (gradients, and one small sum of flags: is a loss non-finite, has
somebody been told to stop, is a checkpoint still being written), and where a checkpoint starts and ends.
"""

import contextlib
import logging
import math
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from midnight.config import Recipe
from midnight.errors import MidnightError
from midnight.ssl import distributed, runtime
from midnight.ssl.checkpoint.aside import CHECKPOINTS
from midnight.ssl.checkpoint.checkpoints import Checkpoint, Checkpoints
from midnight.ssl.checkpoint.finished import keep
from midnight.ssl.crew import StalledError
from midnight.ssl.exports.model_folder import HEADS, export_teacher, of_heads, save_weights
from midnight.ssl.launch.signals import StoppedByOtherError, StoppedError, StopRequest
from midnight.ssl.loader import Loader
from midnight.ssl.loss_scale import LossScale
from midnight.ssl.masking import step_masks
from midnight.ssl.model.float8 import use_float8
from midnight.ssl.model.network import build_student, teacher_of
from midnight.ssl.model.weights import initialise, load_heads
from midnight.ssl.monitor.metrics import METRICS, MetricsFile, effective_rank, entropy, mean_cosine, prototype_entropy
from midnight.ssl.monitor.probe import Probe
from midnight.ssl.monitor.samples import CropSamples
from midnight.ssl.monitor.tracking import Tracker
from midnight.ssl.optimizer import build_optimizer
from midnight.ssl.schedules import Values, values_at
from midnight.ssl.sharding import gathered, restore_tensors, shard, synchronise_gradients, training_tensors
from midnight.ssl.step import Losses, blank, compute_losses, prepare
from midnight.ssl.update import update_of
from midnight.tiles.augment.device import DeviceAugment

log = logging.getLogger(__name__)


class Trainer:
    """Student, teacher, optimizer and counters of one run."""

    def __init__(
        self, recipe: Recipe, output: Path, key: str, device: torch.device, init_from: Path | None, stop: StopRequest
    ) -> None:
        self.recipe, self.output, self.device, self.stop = recipe, output, device, stop
        training = recipe.training
        folder, keep = output / CHECKPOINTS, (training.keep_checkpoints, training.keep_every)
        self.checkpoints = Checkpoints(folder, key, *keep, device=device)
        self.student = build_student(recipe)
        if training.precision == "float8":
            use_float8(cast(nn.Module, self.student.backbone.vit.blocks), device)
        self.augment = (
            DeviceAugment(recipe.crops, recipe.tiles.hed_sigma, recipe.seed) if training.whole_tiles else None
        )
        self.scale = LossScale(training.precision)
        self.step = 0  # micro-steps done
        self.skipped = 0  # optimizer steps left out, in all and since the last good one
        self.consecutive = 0
        self.seconds = 0.0
        self.logged = 0, 0.0  # step and clock of the last line of metrics
        self.samples: CropSamples | None = None
        self.ahead: tuple[int, Tensor] | None = None  # the next micro-step, and its masks
        # as all processes agreed at the last optimizer step
        self.told_to_stop = self.writing = self.abandoned = False
        self.ending: MidnightError | None = None  # why this process has no more batches
        self.unhealthy = torch.zeros((), device=device)  # non-finite losses since the last optimizer step
        saved = self.checkpoints.newest()
        if saved is None:
            initialise(self.student.backbone, recipe.backbone, recipe.crops.global_size, init_from)
            load_heads(self.student, init_from)
        self.teacher = teacher_of(self.student, recipe.loss).to(device)
        self.student.to(device).train()
        if saved is None:
            distributed.same_everywhere([*self.student.state_dict().values(), *self.teacher.state_dict().values()])
        if training.sharded:
            shard(self.student, device)
            shard(self.teacher, device)
        self.optimizer = build_optimizer(self.student, recipe.optimizer)
        if saved is not None:
            self._restore(saved)
            self._check_length()
        self.update = update_of(self.student, self.teacher, self.optimizer, recipe.optimizer)
        self.stepped = self.saved = self.step  # micro-steps done at the last optimizer step, at the last checkpoint

    def _check_length(self) -> None:
        asked = self.recipe.training.iterations
        if self.step > asked:
            raise MidnightError(
                f"{self.output}: has {self.step:,} steps already, and training.iterations is {asked:,}: set it to "
                f"{self.step:,} or more, or give the run another name"
            )

    def run(self, loader: Loader, tracker: Tracker | None, probe: Probe | None = None) -> None:
        """All micro-steps that are left."""
        training = self.recipe.training
        metrics = MetricsFile(self.output / METRICS, self.step) if distributed.rank() == 0 else None
        if self.step >= training.iterations:
            return
        if distributed.rank() == 0:
            self.samples = CropSamples(self.recipe, self.output, tracker)
        if probe is not None and self.step == 0:
            self._keep({"step": 0} | probe.start(self.teacher.backbone), metrics, tracker)
        with contextlib.closing(self._batches(loader)) as batches, self._bar() as bar:
            self.logged = self.step, time.monotonic()
            while self.step < training.iterations:
                values = values_at(self.recipe, self.step, distributed.world())
                losses = self.micro_step(self._next(batches), values)
                self.step += 1
                boundary = self._at_boundary(self.step)
                norm = self.optimizer_step(values) if boundary else math.nan
                if self.abandoned:
                    self._abandon()
                bar.update()
                probing = probe is not None and probe.due(self.step)
                if probing or self.step % training.log_every == 0 or self.step in (1, training.iterations):
                    record = self.record(losses, values, norm)
                    if probe is not None and probing:
                        record |= probe.measure(self.teacher.backbone)
                        self.logged = self.step, time.monotonic()  # probes do not count as training
                    self._keep(record, metrics, tracker)
                    bar.set_postfix_str(f"{record['images_per_s']:.1f} images/s, loss {record['loss']:.3f}")
                if boundary:
                    self.save_if_due()

    @staticmethod
    def _keep(record: Mapping[str, Any], metrics: MetricsFile | None, tracker: Tracker | None) -> None:
        if metrics is not None:
            metrics.append(record)
        if tracker is not None:
            tracker.log(record["step"], record)

    def micro_step(self, raw: Mapping[str, Tensor], values: Values) -> Losses:
        """Forward and backward of one batch; gradients add up until `optimizer_step`."""
        recipe = self.recipe
        runtime.seed_step(recipe.seed, self.step)
        if self.augment is not None:
            raw = self.augment(raw["tiles"].to(self.device, non_blocking=True), raw["index"])
        if self.samples is not None and self.ending is None:
            self.samples.look(raw, self.step)
        tiles = len(raw["global_crops"])
        batch = prepare(raw, self._masks(tiles), recipe.crops, self.device)
        with runtime.autocast(self.device, recipe.training):
            losses = compute_losses(self.student, self.teacher, batch, values.teacher_temperature, recipe.loss)
        # Only noted: to ask for it here would hold up the device, and all processes, once per micro-step.
        self.unhealthy += ~torch.isfinite(losses.total.detach())
        synchronise_gradients(self.student, self._at_boundary(self.step + 1))
        self.scale.up(losses.total / self._accumulated()).backward()
        self.ahead = self.step + 1, self._draw_masks(tiles, self.step + 1)  # while a GPU is still at work
        return losses

    def optimizer_step(self, values: Values) -> float:
        """Clip, step, update the teacher; or skip, where a loss or gradient was not finite.

        Returns:
            Norm of the gradients before clipping; NaN where a loss was not finite, infinite where only they are not.

        Raises:
            MidnightError: as many consecutive steps as the recipe allows were skipped.
        """
        distributed.average_gradients(self.student)
        self.scale.down(self.student)
        norm = self._agree(self.update.clip(values))
        if self.abandoned:
            return norm
        if math.isfinite(norm):
            self.update.apply(values)
            self.scale.step_made()
            self.consecutive = 0
        else:
            self._skip(overflow=math.isinf(norm) and self.scale.overflow())
        self.optimizer.zero_grad(set_to_none=True)
        self.stepped = self.step
        return norm

    def _next(self, batches: Generator[Mapping[str, Tensor], None, None]) -> Mapping[str, Tensor]:
        """The next batch. Where none comes any more, a blank one up to the optimizer step, which then is not made:

        the other processes wait in the losses, and can't be told before.

        Raises:
            StoppedError, StalledError: there are no other processes.
        """
        if self.ending is None:
            try:
                return next(batches)
            except (StoppedError, StalledError) as error:
                self.ending = error
        if not distributed.active():
            self._abandon()
        return blank(self.recipe)

    def _abandon(self) -> NoReturn:
        """Go back to the last optimizer step, which is what all weights still are, save that and end the run.

        Raises:
            StoppedError, StalledError: always.
        """
        self.step = self.stepped
        if self.step > self.saved and self.consecutive == 0:
            self.save()
        self.checkpoints.finish()
        where = f"saved at step {self.saved}" if self.saved else "before anything was to be saved"
        if isinstance(self.ending, StalledError):
            raise StalledError(f"{self.output}: {self.ending}; {where}: then run again to go on") from self.ending
        raise self._stopped(where)

    def _stopped(self, where: str) -> StoppedError:
        if self.stop.received is None and self.ending is None:
            return StoppedByOtherError(f"{self.output}: stopped by another process, {where}; run again to go on")
        name = self.stop.received.name if self.stop.received else "a signal"
        return StoppedError(f"{self.output}: stopped by {name}, {where}; run again to go on from there")

    def _agree(self, norm: Tensor) -> float:
        """The gradients' norm, infinite if it is not finite, NaN if a loss was not finite on any process.

        Also brings the processes' flags together.

        The only place of an optimizer step that waits for the device.
        """
        own = [float(bool(self.stop)), float(self.checkpoints.writing()), float(self.ending is not None)]
        flags = [self.unhealthy, *(torch.full((), value, device=self.device) for value in own)]
        values = torch.stack([*distributed.all_sum(torch.stack(flags)), norm.float()]).tolist()
        self.unhealthy.zero_()
        self.told_to_stop, self.writing, self.abandoned = (value > 0 for value in values[1:4])
        if values[0]:
            return math.nan
        return float(values[4]) if math.isfinite(values[4]) else math.inf

    def _skip(self, overflow: bool) -> None:
        """Leave the optimizer step out; `overflow`: its gradients were too large for float16, which is no failure."""
        self.skipped += 1
        if self.teacher.centres is not None:
            self.teacher.centres.forget()
        if overflow:
            return
        self.consecutive += 1
        log.warning("step %d: loss or gradient is not finite; optimizer step skipped", self.step)
        if self.consecutive >= max(1, self.recipe.training.max_nonfinite):
            self.checkpoints.finish()
            last = self.checkpoints.paths()[-1] if self.checkpoints.paths() else "none"
            raise MidnightError(
                f"{self.output}: {self.consecutive} consecutive non-finite losses up to step {self.step}; stopped; "
                f"last good checkpoint, kept: {last}; look at the data, or lower optimizer.base_lr in the run's "
                f"override and go on from there: midnight train {self.output.name} --continue-with "
                "optimizer.base_lr=VALUE (without it, the run begins anew at step 0)"
            )

    def record(self, losses: Losses, values: Values, norm: float) -> dict[str, Any]:
        """One line of metrics.jsonl; what depends on the tiles is the mean over processes, which all must call."""
        temperature = self.recipe.loss.student_temperature
        measured = {
            "loss": losses.total,
            "dino": losses.dino,
            "ibot": losses.ibot,
            "regularizer": losses.regularizer,
            "mean_cosine": mean_cosine(losses.targets.cls.chunk(2)[0]),
            "rank": effective_rank(losses.targets.cls.chunk(2)[0]),
            "entropy": entropy(losses.targets.dino),
            "prototype_entropy": prototype_entropy(losses.student_logits, temperature),
        }
        means = distributed.all_sum(torch.stack([value.detach().float() for value in measured.values()]))
        return {
            "step": self.step,
            **dict(zip(measured, (means / distributed.world()).tolist(), strict=True)),
            "lr": values.lr,
            "weight_decay": values.weight_decay,
            "momentum": values.momentum,
            "teacher_temperature": values.teacher_temperature,
            "grad_norm": norm,
            "skipped": self.skipped,
            "images_per_s": self._rate(),
            "seconds": self.seconds,
        }

    def _rate(self) -> float:
        """Images per second, of all processes, since the last logged step; also adds to the seconds trained."""
        (step, clock), self.logged = self.logged, (self.step, time.monotonic())
        seconds = max(self.logged[1] - clock, 1e-9)
        self.seconds += seconds
        return (self.step - step) / seconds * self.recipe.training.batch_size * distributed.world()

    def save_if_due(self) -> None:
        """After an optimizer step: complete the checkpoint that is written by now, start the next, stop if told to.

        Raises:
            MidnightError: the disk is full.
            StoppedError: some process was told to stop; all is saved.
        """
        if not self.writing:
            self.checkpoints.finish()
        if self._checkpoint_due() or (self.told_to_stop and self.consecutive == 0):
            self.save()
        if self.told_to_stop or self.step >= self.recipe.training.iterations:
            self.checkpoints.finish()
        if self.told_to_stop and self.step < self.recipe.training.iterations:
            raise self._stopped(f"saved at step {self.saved}")

    def save(self) -> None:
        """Start to write a checkpoint of everything that the rest of the run depends on."""
        counters = {"skipped": self.skipped, "consecutive": self.consecutive, "seconds": self.seconds}
        counters |= self.scale.state()
        self.checkpoints.start(self.step, training_tensors(self.student, self.teacher, self.optimizer), counters)
        self.saved = self.step

    def export(self, data: str, inputs: Mapping[str, Path], segments: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write the teacher, and its heads for a post-training."""
        teacher = gathered(self.teacher, self.recipe)
        if distributed.rank() == 0:
            save_weights(self.output / HEADS, of_heads(teacher.state_dict()))
            export_teacher(teacher.backbone.vit, self.recipe, self.output, self.step, data, inputs, segments)
            keep(self.output, self.checkpoints.key)
        distributed.barrier()

    def _restore(self, saved: Checkpoint) -> None:
        restore_tensors(self.student, self.teacher, self.optimizer, saved.tensors)
        self.step, state = saved.step, saved.state
        self.skipped, self.consecutive, self.seconds = state["skipped"], state["consecutive"], state["seconds"]
        self.scale.restore(state)
        log.info("resumed from step %d of %s", self.step, self.checkpoints.folder)

    def _at_boundary(self, step: int) -> bool:
        """Whether an optimizer step follows the micro-step after which `step` are done."""
        return step % self.recipe.training.accumulation == 0 or step == self.recipe.training.iterations

    def _accumulated(self) -> int:
        """Micro-steps whose gradients the next optimizer step has: fewer in the last one of a run that ends between."""
        training = self.recipe.training
        return min(
            training.accumulation, training.iterations - self.step // training.accumulation * training.accumulation
        )

    def _masks(self, tiles: int) -> Tensor:
        if self.ahead is not None and self.ahead[0] == self.step and len(self.ahead[1]) == 2 * tiles:
            return self.ahead[1]
        return self._draw_masks(tiles, self.step)

    def _draw_masks(self, tiles: int, step: int) -> Tensor:
        loss, side = self.recipe.loss, self.recipe.crops.global_size // self.student.backbone.patch_size
        rank, grid = distributed.rank(), (side, side)
        masks = step_masks(self.recipe.seed, rank, step, 2 * tiles, grid, loss.mask_probability, loss.mask_ratio)
        return torch.from_numpy(masks)

    def _batches(self, loader: Loader) -> Generator[Mapping[str, Tensor], None, None]:
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
