"""`midnight bench train`: a recipe's own steps, timed."""

import dataclasses
import json

import pytest
import torch

from midnight.cli import main
from midnight.errors import MidnightError
from midnight.ssl import bench as module
from midnight.ssl.bench import Stepper, bench, known_gpu, text
from midnight.ssl.step import compute_losses, prepare
from tests.ssl.tiny import tiny_recipe

CPU = torch.device("cpu")


def test_a_step_is_the_trainers() -> None:
    """Loss of the recipe, another batch of masks each time, and weights and teacher that move."""
    recipe = tiny_recipe()
    stepper = Stepper(recipe, CPU)
    batch = prepare(stepper.crops, stepper._masks(0), recipe.crops, CPU)
    module.runtime.seed_step(0, 0)
    expected = compute_losses(stepper.student, stepper.teacher, batch, 0.07, recipe.loss).total
    before = [parameter.clone() for network in (stepper.student, stepper.teacher) for parameter in network.parameters()]
    found = stepper.losses().total
    assert torch.equal(found, expected)
    stepper.optimizer.zero_grad()
    stepper.step()
    after = [parameter for network in (stepper.student, stepper.teacher) for parameter in network.parameters()]
    moved = sum(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert moved > 0.8 * len(after)
    assert stepper.number == 1 and not torch.equal(stepper._masks(0), stepper._masks(1))


def test_figures_belong_together() -> None:
    recipe = tiny_recipe()
    found = bench(recipe, 4)
    assert found["batch"] == recipe.training.batch_size and found["blocks"] == "plain" and found["device"] == "CPU"
    assert found["images_per_s"] == pytest.approx(1000 * found["batch"] / found["ms"], rel=0.05)
    assert 0 < found["dispatch_ms"] < 1.5 * found["ms"]
    assert found["utilisation"] is None and "peak_gb" not in found
    longest = [kernel["ms"] for kernel in found["kernels"]]
    assert len(longest) == 10 and longest == sorted(longest, reverse=True) and longest[0] > 0
    said = text(found | {"utilisation": 0.51, "peak_gb": 63.8})
    assert "51% of the data sheet's" in said and "63.8 GB of torch's" in said


def test_what_does_not_fit_is_told_with_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "timed", full)
    with pytest.raises(MidnightError, match=r"recipe tiny: a batch of 4 does not fit .* smaller --batch"):
        bench(tiny_recipe(), 1)


@pytest.mark.parametrize(
    ("name", "known"),
    [("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H200", "H200"), ("NVIDIA H100 PCIe", "H100 PCIe"),
     ("NVIDIA A100-SXM4-80GB", "A100"),
     ("NVIDIA A10", "A10"), ("NVIDIA GeForce RTX 4090", "RTX 4090"), ("Tesla T4", None)],
)  # fmt: skip
def test_gpus_by_their_names(name: str, known: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    found = known_gpu(torch.device("cuda", 0))
    assert (found and found.name) == known
    assert known_gpu(CPU) is None


def test_on_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def small(recipe: object, steps: int) -> dict[str, object]:
        assert dataclasses.is_dataclass(recipe)
        return bench(tiny_recipe(training={"batch_size": recipe.training.batch_size}), steps)  # type: ignore[attr-defined]

    monkeypatch.setattr(module, "bench", small)
    main(["bench", "train", "demo", "--batch", "2", "--steps", "1", "--json"])
    assert json.loads(capsys.readouterr().out)["batch"] == 2
    main(["bench", "train", "demo", "--batch", "2", "--steps", "1"])
    assert "on one CPU: batch 2, plain blocks" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["bench", "train", "demo", "--batch", "0"])
    assert "0 is no whole number from 1 on" in capsys.readouterr().err
