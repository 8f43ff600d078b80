import logging
from pathlib import Path

import pytest
import torch

from midnight.ssl import loss_scale, runtime
from midnight.ssl.loss_scale import FIRST, LARGEST, LossScale
from midnight.ssl.model.network import build_student
from tests.ssl.test_trainer import StopError, assert_same, curves, stopping_at, weights
from tests.ssl.tiny import tiny_recipe, train_tiny


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float8"])
def test_other_precisions_have_none(precision: str) -> None:
    scale, loss = LossScale(precision), torch.ones(())
    assert scale.up(loss) is loss
    assert not scale.overflow()
    assert scale.state() == {}


def test_gradients_are_those_of_the_loss() -> None:
    student, scale = build_student(tiny_recipe()), LossScale("float16")
    parameter = student.dino_head.prototypes
    scale.up(parameter.square().sum()).backward()
    assert parameter.grad is not None
    assert torch.equal(parameter.grad, 2 * FIRST * parameter)
    scale.down(student)
    assert torch.equal(parameter.grad, 2 * parameter)


def test_it_grows_with_good_steps_as_torch_s_scaler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps 2 and 9 overflow."""
    monkeypatch.setattr(loss_scale, "GROWTH_INTERVAL", 3)
    ours, theirs = LossScale("float16"), torch.amp.GradScaler("cpu", growth_interval=3)
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.0)
    for step in range(16):
        weight.grad = theirs.scale(torch.full((1,), torch.inf if step in (2, 9) else 1.0))
        theirs.step(optimizer)
        theirs.update()
        if step in (2, 9):
            assert ours.overflow()
        else:
            ours.step_made()
        assert ours.value == theirs.get_scale(), step


def test_it_has_bounds() -> None:
    scale = LossScale("float16")
    while scale.overflow():
        pass
    assert scale.value == 1
    scale.value, scale.good = LARGEST, 10**6
    scale.step_made()
    assert scale.value == LARGEST


def test_a_power_of_two_changes_no_loss_and_no_weight(tmp_path: Path) -> None:
    """On the CPU, where the forward pass is in float32 whatever the recipe says."""
    for precision in ("float32", "float16"):
        train_tiny(tmp_path / precision, tiny_recipe(training={"precision": precision}))
    assert_same(tmp_path / "float32", tmp_path / "float16")


def test_training_in_float16_follows_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-precision products on the CPU stand for a GPU's."""
    recipes = {name: tiny_recipe(training={"precision": name}) for name in ("float32", "float16")}
    train_tiny(tmp_path / "float32", recipes["float32"])
    half = torch.autocast("cpu", dtype=torch.float16)
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**3)  # gradients of this tiny backbone are in the thousands
    monkeypatch.setattr(runtime, "autocast", lambda device, training: half)
    train_tiny(tmp_path / "float16", recipes["float16"])
    expected, found = curves(tmp_path / "float32"), curves(tmp_path / "float16")
    for name in ("loss", "grad_norm"):
        one, other = ([line[name] for line in lines if line[name] is not None] for lines in (expected, found))
        assert other == pytest.approx(one, rel=0.02)
        assert other != one
    assert found[-1]["skipped"] == 0


def test_overflows_are_skipped_are_no_failure_and_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Three in a row, where two non-finite losses would stop the run; the fourth step finds a scale that fits."""
    recipe = tiny_recipe(
        training={"precision": "float16", "iterations": 16, "max_nonfinite": 2}, optimizer={"clip_grad": 1.0}
    )
    monkeypatch.setattr(loss_scale, "FIRST", float(2**130))
    too_large = 2.0**127
    monkeypatch.setattr(LossScale, "up", lambda scale, loss: loss * (torch.inf if scale.value > too_large else 1))
    monkeypatch.setattr(LossScale, "down", lambda scale, student: None)
    with caplog.at_level(logging.INFO):
        train_tiny(tmp_path / "run", recipe)
    assert [line["skipped"] for line in curves(tmp_path / "run")][1::2] == [1, 2, 3, 3, 3, 3, 3, 3]
    assert caplog.text.count("gradients beyond float16") == 3
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())
    with pytest.raises(StopError):
        train_tiny(tmp_path / "cut", recipe, stopping_at(5))
    train_tiny(tmp_path / "cut", recipe)
    assert_same(tmp_path / "run", tmp_path / "cut")
