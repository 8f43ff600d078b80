import itertools
import json
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from midnight.errors import ConfigError, MidnightError
from midnight.ssl import trainer, update
from midnight.ssl.checkpoint import checkpoints as checkpoint
from midnight.ssl.checkpoint.finished import finished_step
from midnight.ssl.crew import StalledError
from midnight.ssl.exports.model_folder import load_model
from midnight.ssl.launch.signals import StoppedError
from midnight.ssl.masking import step_masks
from midnight.ssl.schedules import values_at
from midnight.ssl.step import blank, compute_losses, prepare
from midnight.tiles.stream import TileStream, channels_first
from tests.ssl.tiny import batch_at, loader, tiny_recipe, train_tiny

TIMES = ("images_per_s", "seconds")


def curves(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def weights(output: Path) -> dict[str, Tensor]:
    return load_file(output / "teacher.safetensors")


def assert_same(one: Path, other: Path) -> None:
    assert curves(one) == curves(other)
    first, second = weights(one), weights(other)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption."""
    output = tmp_path_factory.mktemp("whole") / "run"
    train_tiny(output)
    return output


class StopError(Exception):
    """Stands for a kill between two batches."""


def stopping_at(last: int) -> Any:
    def batches(start: int) -> Iterator[dict[str, Tensor]]:
        for step in itertools.count(start):
            if step == last:
                raise StopError
            yield batch_at(step)

    return batches


def test_a_run_leaves_what_it_should(whole: Path) -> None:
    lines = curves(whole)
    assert [line["step"] for line in lines] == list(range(1, 9))
    expected = ["loss", "dino", "ibot", "regularizer", "lr", "weight_decay", "momentum", "teacher_temperature"]
    assert set(lines[0]) >= {*expected, "grad_norm", "mean_cosine", "entropy", "prototype_entropy"}
    assert all(line["loss"] is not None for line in lines)
    assert [path.name for path in sorted((whole / "checkpoints").iterdir())] == [f"step_0000000{n}" for n in (4, 6, 8)]
    asked = [values_at(tiny_recipe(), step, 1) for step in range(8)]
    assert [(line["lr"], line["momentum"]) for line in lines] == [(one.lr, one.momentum) for one in asked]
    config = yaml.safe_load((whole / "config.yaml").read_text())
    assert config["recipe"]["heads"]["prototypes"] == 32
    model, card = load_model(whole)
    assert (card["step"], card["data"]) == (8, "demo")
    assert torch.isfinite(model(torch.randn(1, 3, 28, 28))).all()


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    recipe = tiny_recipe(
        training={"iterations": 30, "accumulation": 1, "checkpoint_every": 30},
        optimizer={"base_lr": 5e-2, "momentum": [0.9, 1.0]},
    )
    train_tiny(tmp_path, recipe, lambda start: (batch_at(0) for _ in itertools.count(start)))
    lines = curves(tmp_path)
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]


def test_the_teacher_follows_the_student(tmp_path: Path) -> None:
    """With momentum 0 all the way: it is the student."""
    train_tiny(tmp_path, tiny_recipe(optimizer={"base_lr": 5e-2, "momentum": [0.0, 0.0]}))
    saved = load_file(tmp_path / "checkpoints" / "step_00000008" / "shard-00000.safetensors")
    student = {name.removeprefix("student."): value for name, value in saved.items() if name.startswith("student.")}
    assert "backbone.vit.blocks.1.attn.qkv.weight" in student
    for name, value in student.items():
        torch.testing.assert_close(saved[f"teacher.{name}"], value)


def test_the_same_seed_gives_the_same_run_and_another_does_not(whole: Path, tmp_path: Path) -> None:
    train_tiny(tmp_path / "again")
    assert_same(whole, tmp_path / "again")
    train_tiny(tmp_path / "other", tiny_recipe(seed=1))
    assert curves(tmp_path / "other")[0]["loss"] != curves(whole)[0]["loss"]


@pytest.mark.parametrize("last", [1, 3, 5, 6])
def test_a_resumed_run_is_the_same_bit_for_bit(
    whole: Path, tmp_path: Path, last: int, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StopError):
        train_tiny(tmp_path, batches=stopping_at(last))
    with caplog.at_level(logging.INFO):
        train_tiny(tmp_path)
    if last > 2:
        assert f"resumed from step {last // 2 * 2}" in caplog.text
    assert_same(whole, tmp_path)


def test_centres_of_softmax_targets_are_a_part_of_the_run(tmp_path: Path) -> None:
    """They are in its checkpoints, and not in its exported heads."""
    recipe = tiny_recipe(loss={"centering": "softmax"}, optimizer={"base_lr": 1e-2})
    train_tiny(tmp_path / "whole", recipe)
    with pytest.raises(StopError):
        train_tiny(tmp_path / "cut", recipe, stopping_at(5))
    saved = load_file(tmp_path / "cut" / "checkpoints" / "step_00000004" / "shard-00000.safetensors")
    assert all(saved[f"teacher.centres.{name}.centre"].any() for name in ("dino", "ibot"))
    train_tiny(tmp_path / "cut", recipe)
    assert_same(tmp_path / "whole", tmp_path / "cut")
    train_tiny(tmp_path / "sinkhorn", tiny_recipe(optimizer={"base_lr": 1e-2}))
    heads = [set(load_file(tmp_path / name / "heads.safetensors")) for name in ("whole", "sinkhorn")]
    assert heads[0] == heads[1]
    assert curves(tmp_path / "whole")[0]["dino"] != curves(tmp_path / "sinkhorn")[0]["dino"]


def test_a_skipped_step_leaves_the_centres_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned({0}, monkeypatch)
    recipe = tiny_recipe(loss={"centering": "softmax", "center_momentum": 0.0}, training={"iterations": 2})
    train_tiny(tmp_path, recipe)
    saved = load_file(tmp_path / "checkpoints" / "step_00000002" / "shard-00000.safetensors")
    assert not saved["teacher.centres.dino.centre"].any()


@pytest.mark.parametrize("error", [StalledError, StoppedError])
def test_a_run_without_further_batches_saves_its_last_optimizer_step_and_goes_on_from_there(
    whole: Path, tmp_path: Path, error: type[MidnightError]
) -> None:
    """No checkpoint is due on the way, and the fourth micro-step is only half of an optimizer step."""

    def batches(start: int) -> Iterator[dict[str, Tensor]]:
        yield from (batch_at(step) for step in range(start, 5))
        raise error("/slides/a.svs hangs")

    recipe = tiny_recipe(training={"checkpoint_every": 1000})
    with pytest.raises(error, match=r"saved at step 4") as caught:
        train_tiny(tmp_path, recipe, batches)
    assert type(caught.value) is error
    assert ("/slides/a.svs hangs" in str(caught.value)) == (error is StalledError)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000004"]
    train_tiny(tmp_path, recipe)
    assert_same(whole, tmp_path)


def test_without_a_first_batch_there_is_nothing_to_save(tmp_path: Path) -> None:
    def batches(start: int) -> Iterator[dict[str, Tensor]]:
        raise StalledError("/slides/a.svs hangs")
        yield

    with pytest.raises(StalledError, match=r"/slides/a\.svs hangs; before anything was to be saved"):
        train_tiny(tmp_path, batches=batches)
    assert not list(tmp_path.glob("checkpoints/*"))


@pytest.mark.parametrize("augment", ["cpu", "device"])
def test_a_blank_batch_is_like_a_loaders(augment: str) -> None:
    recipe = tiny_recipe(training={"augment": augment})
    stream = TileStream.__new__(TileStream)
    stream._crops, stream._tiles, stream._batch_size, stream._raw = recipe.crops, recipe.tiles, 4, augment == "device"
    expected = channels_first({name: torch.zeros(shape) for name, shape in stream.shapes().items()})
    batch = blank(recipe)
    assert {name: pixels.shape for name, pixels in expected.items()}.items() <= {
        name: pixels.shape for name, pixels in batch.items()
    }.items()
    assert all(not pixels.any() for pixels in batch.values())


def run_until_killed(output: Path) -> None:
    def batches(start: int) -> Iterator[dict[str, Tensor]]:
        for step in itertools.count(start):
            if step == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch_at(step)

    train_tiny(output, batches=batches)


def test_killed_with_sigkill_it_goes_on_with_the_same_losses(whole: Path, tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=run_until_killed, args=(tmp_path,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "teacher.safetensors").exists()
    train_tiny(tmp_path)
    assert_same(whole, tmp_path)


def test_a_damaged_newest_checkpoint_costs_only_its_steps(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StopError):
        train_tiny(tmp_path, batches=stopping_at(6))
    state = tmp_path / "checkpoints" / "step_00000006" / "shard-00000.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    train_tiny(tmp_path)
    assert "step_00000006 is damaged" in caplog.text
    assert_same(whole, tmp_path)


def test_a_finished_run_is_exported_again_without_a_step(whole: Path, tmp_path: Path) -> None:
    train_tiny(tmp_path)
    (tmp_path / "teacher.safetensors").unlink()
    train_tiny(tmp_path, batches=stopping_at(8))
    assert_same(whole, tmp_path)


def test_another_configuration_starts_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train_tiny(tmp_path)
    train_tiny(tmp_path, tiny_recipe(optimizer={"base_lr": 1e-2}))
    assert "made by another configuration" in caplog.text
    assert [line["step"] for line in curves(tmp_path)] == list(range(1, 9))
    assert "begins anew at step 0 (to go on instead: " in caplog.text
    assert "; its 8 steps so far are kept" in caplog.text
    assert len(list(tmp_path.glob("checkpoints.*"))) == 1


def test_going_back_to_old_values_goes_on_with_their_progress(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        train_tiny(tmp_path, batches=stopping_at(6))
    with pytest.raises(StopError):
        train_tiny(tmp_path, tiny_recipe(optimizer={"base_lr": 1e-2}), batches=stopping_at(3))
    train_tiny(tmp_path, batches=only_from(6))
    assert_same(whole, tmp_path)


def test_a_finished_model_is_kept_under_its_key(whole: Path) -> None:
    """Snakemake removes the run's own before it trains otherwise."""
    key = yaml.safe_load((whole / "config.yaml").read_text())["hash"]
    assert finished_step(whole, key) == tiny_recipe().training.iterations


def only_from(first: int) -> Any:
    """Batches for a run that must not begin before a step."""

    def batches(start: int) -> Iterator[dict[str, Tensor]]:
        assert start >= first
        return loader(start)

    return batches


@pytest.mark.parametrize("more", [{}, {"checkpoint_every": 3}])
def test_a_run_with_schedules_of_their_own_length_is_extended_to_the_bit(tmp_path: Path, more: dict[str, Any]) -> None:
    def recipe(steps: int) -> Any:
        return tiny_recipe(training={"schedule_iterations": 20, "iterations": steps, **more})

    train_tiny(tmp_path / "straight", recipe(8))
    train_tiny(tmp_path / "extended", recipe(4))
    train_tiny(tmp_path / "extended", recipe(8), batches=only_from(4))
    assert_same(tmp_path / "straight", tmp_path / "extended")


def test_a_run_is_not_made_shorter_in_silence(tmp_path: Path) -> None:
    fixed = {"schedule_iterations": 20}
    train_tiny(tmp_path, tiny_recipe(training={**fixed, "iterations": 8}))
    with pytest.raises(MidnightError, match=r"has 8 steps already, and training\.iterations is 4: set it to 8 or more"):
        train_tiny(tmp_path, tiny_recipe(training={**fixed, "iterations": 4}))


def test_bookkeeping_does_not_make_another_configuration(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        train_tiny(tmp_path, batches=stopping_at(5))
    train_tiny(tmp_path, tiny_recipe(training={"checkpoint_every": 4, "keep_checkpoints": 1}))
    assert_same(whole, tmp_path)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def poisoned(steps: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the losses of some micro-steps (counted in calls) be NaN."""
    calls = itertools.count()

    def losses(*arguments: Any) -> Any:
        out = compute_losses(*arguments)
        if next(calls) in steps:
            out.total.data.fill_(float("nan"))
        return out

    monkeypatch.setattr(trainer, "compute_losses", losses)


def test_a_non_finite_loss_is_skipped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned({2}, monkeypatch)
    train_tiny(tmp_path)
    lines = curves(tmp_path)
    assert [line["skipped"] for line in lines] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert lines[2]["loss"] is None
    assert lines[3]["grad_norm"] is None
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


def test_too_many_stop_the_run_and_keep_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(set(range(4, 100)), monkeypatch)
    recipe = tiny_recipe(training={"max_nonfinite": 2})
    with pytest.raises(MidnightError, match=r"2 consecutive non-finite losses up to step 8") as caught:
        train_tiny(tmp_path, recipe)
    assert "step_00000004" in str(caught.value)
    kept = load_file(tmp_path / "checkpoints" / "step_00000004" / "shard-00000.safetensors")
    assert all(torch.isfinite(value).all() for value in kept.values())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name > "step_00000004"] == []


def test_post_training_starts_from_the_parents_teacher_at_a_larger_size(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tiny_recipe(
        backbone={"init": "run:whole"},
        crops={"global_size": 42, "local_size": 21},
        optimizer={"base_lr": 0.0 + 1e-12, "min_lr": 0.0},
        training={"iterations": 2},
    )

    def larger(start: int) -> Iterator[dict[str, Tensor]]:
        for step in itertools.count(start):
            raw = batch_at(step)
            yield {
                "global_crops": torch.nn.functional.pad(raw["global_crops"], (7, 7, 7, 7)),
                "local_crops": torch.nn.functional.pad(raw["local_crops"], (3, 4, 3, 4)),
            }

    train_tiny(tmp_path, recipe, larger, init_from=whole)
    model, card = load_model(tmp_path)
    parent, _ = load_model(whole)
    assert card["img_size"] == 42
    assert model.pos_embed.shape == (1, 37, 24)
    torch.testing.assert_close(model.blocks[1].attn.qkv.weight, parent.blocks[1].attn.qkv.weight)
    heads, old = load_file(tmp_path / "heads.safetensors"), load_file(whole / "heads.safetensors")
    torch.testing.assert_close(heads["dino_head.prototypes"], old["dino_head.prototypes"])
    assert "start at random" not in caplog.text


def test_what_cannot_be_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.gpus is 32, but 1 process"):
        train_tiny(tmp_path, tiny_recipe(training={"gpus": 32}))
    with pytest.raises(MidnightError, match=r"missing/model\.json|no model\.json"):
        train_tiny(tmp_path, tiny_recipe(backbone={"init": "run:missing"}), init_from=tmp_path / "missing")
    with pytest.raises(MidnightError, match="the data ended at step 2 of 8"):
        train_tiny(tmp_path, batches=lambda start: itertools.islice(loader(start), 2))
    with pytest.raises(MidnightError, match=r"nowhere\.parquet: can't be read"):
        train_tiny(tmp_path, cohorts={"c": (tmp_path / "nowhere.parquet", 1.0)})


def test_a_dead_tracking_server_does_not_stop_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from midnight.config import Mlflow

    train_tiny(tmp_path, mlflow=Mlflow(tracking_uri="http://127.0.0.1:9"))
    assert "training goes on without tracking" in caplog.text
    assert (tmp_path / "teacher.safetensors").exists()


@pytest.mark.parametrize(("iterations", "groups"), [(4, [2, 2]), (5, [2, 2, 1])])
def test_accumulated_gradients_are_the_mean_of_their_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, iterations: int, groups: list[int]
) -> None:
    """Also of the last ones, which may be fewer; as they come to the clipping."""
    parts: list[list[Tensor]] = []
    compared: list[int] = []
    clip = update.clip_gradients

    def losses(student: Any, *arguments: Any) -> Any:
        made = compute_losses(student, *arguments)
        known = [value for value in student.parameters() if value.requires_grad]
        found = torch.autograd.grad(made.total, known, retain_graph=True, materialize_grads=True)
        parts.append(list(found))
        return made

    def clipped(student: Any, limit: float) -> Any:
        known = [value for value in student.parameters() if value.requires_grad]
        for value, *each in zip(known, *parts, strict=True):
            given = torch.zeros_like(value) if value.grad is None else value.grad
            torch.testing.assert_close(given, torch.stack(each).mean(0))
        compared.append(len(parts))
        parts.clear()
        return clip(student, limit)

    monkeypatch.setattr(trainer, "compute_losses", losses)
    monkeypatch.setattr(update, "clip_gradients", clipped)
    train_tiny(tmp_path / "run", tiny_recipe(training={"iterations": iterations}))
    assert compared == groups


def test_a_checkpoint_that_is_being_written_holds_nothing_up_and_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training goes on while it is written; it is completed by the first step that finds it written."""
    written = threading.Event()
    write, folder = checkpoint.write_pieces, tmp_path / "checkpoints"
    seen: list[list[str]] = []
    in_time: list[bool] = []

    def slow(*arguments: Any) -> Any:
        in_time.append(written.wait(20))
        return write(*arguments)

    def batches(start: int) -> Iterator[dict[str, Tensor]]:
        for step, batch in enumerate(loader(start), start + 1):
            seen.append(sorted(path.name for path in folder.glob("step_*")))
            if step == 8:
                written.set()
            yield batch

    monkeypatch.setattr(checkpoint, "write_pieces", slow)
    train_tiny(tmp_path, tiny_recipe(training={"checkpoint_every": 4}), batches=batches)
    assert all(in_time) and in_time, "a step waited for the checkpoint"
    assert seen == [[]] * 8
    assert (folder / "step_00000008").is_dir()


def test_masks_drawn_ahead_are_those_of_their_own_micro_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def prepared(raw: Any, masks: Tensor, *others: Any) -> Any:
        seen.append(masks)
        return prepare(raw, masks, *others)

    monkeypatch.setattr(trainer, "prepare", prepared)
    recipe = tiny_recipe()
    train_tiny(tmp_path, recipe)
    loss = recipe.loss
    for step, masks in enumerate(seen):
        expected = step_masks(recipe.seed, 0, step, 8, (4, 4), loss.mask_probability, loss.mask_ratio)
        assert torch.equal(masks, torch.from_numpy(expected)), step
    assert len(seen) == recipe.training.iterations
