"""An optimizer step in one pass over memory is the step that torch's functions make one after the other."""

import copy

import pytest
import torch
from torch import Tensor

from midnight.config import Optimizer
from midnight.ssl import update as module
from midnight.ssl.kernels import update as kernels
from midnight.ssl.model.network import Network, build_student, teacher_of
from midnight.ssl.optimizer import build_optimizer
from midnight.ssl.schedules import Values
from midnight.ssl.update import OnePassUpdate, Update
from tests.ssl.kernels.interpreted import DEVICE, interpret
from tests.ssl.tiny import tiny_recipe

CONFIG = Optimizer(layer_decay=0.5, clip_grad=0.5, betas=(0.8, 0.95))


def networks() -> tuple[Network, Network]:
    student = build_student(tiny_recipe()).to(DEVICE)
    return student, teacher_of(student)


def values(step: int) -> Values:
    return Values(1e-2 * (step + 1), 0.1, 0.9 + 0.01 * step, 0.07, frozen_prototypes=step == 0)


def lying_anyhow(values: Tensor) -> Tensor:
    """The same numbers as a view that begins between two multiples of 16 bytes, or in another order."""
    if values.ndim == 2:
        return values.T.contiguous().T
    held = torch.empty(values.numel() + 1, device=values.device)
    held[1:] = values.flatten()
    return held[1:].view(values.shape)


def give_gradients(student: Network, step: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(step)
    for name, parameter in student.named_parameters():
        if name != "backbone.mask_token" or step > 1:
            parameter.grad = lying_anyhow(scale * torch.randn(parameter.shape, generator=generator).to(DEVICE))


@pytest.mark.parametrize("scale", [1e-3, 1.0], ids=["not clipped", "clipped"])
def test_as_torchs_functions(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    interpret(monkeypatch)
    from midnight.ssl.kernels.on_gpu import update as on_gpu

    if DEVICE.type == "cpu":  # chunks of which tiny tensors have several, whole ones and not
        monkeypatch.setattr(kernels, "CHUNK", 96)
        monkeypatch.setattr(on_gpu, "CHUNK", 96)
        monkeypatch.setattr(on_gpu, "BLOCK", 32)
        module._chunks.cache_clear()
    ours, expected = networks(), networks()
    steps = (
        OnePassUpdate(*ours, build_optimizer(ours[0], CONFIG), CONFIG),
        Update(*expected, build_optimizer(expected[0], CONFIG), CONFIG),
    )
    for number in range(3):
        norms = []
        for step in steps:
            give_gradients(step.student, number, scale)
            norms.append(step.clip(values(number)))
            if type(step) is OnePassUpdate:
                own = [parameter.grad for parameter in step.student.parameters() if parameter.grad is not None]
                assert all(grad.is_contiguous() and grad.data_ptr() % 16 == 0 for grad in own)
            step.apply(values(number))
            step.optimizer.zero_grad(set_to_none=True)
        torch.testing.assert_close(*norms)
    for one, other in zip(ours, expected, strict=True):
        for name, value in other.state_dict().items():
            torch.testing.assert_close(one.state_dict()[name], value, msg=lambda text, name=name: f"{name}: {text}")
    assert_same_state(steps[0].optimizer, steps[1].optimizer)
    module._chunks.cache_clear()


def assert_same_state(ours: torch.optim.Optimizer, expected: torch.optim.Optimizer) -> None:
    one, other = ours.state_dict()["state"], expected.state_dict()["state"]
    assert one.keys() == other.keys() and one
    for number, state in other.items():
        assert state.keys() == one[number].keys()
        for key, value in state.items():
            torch.testing.assert_close(one[number][key].cpu(), value.cpu())


def test_goes_on_from_a_restored_state(monkeypatch: pytest.MonkeyPatch) -> None:
    interpret(monkeypatch)
    student, teacher = networks()
    optimizer = build_optimizer(student, CONFIG)
    step = OnePassUpdate(student, teacher, optimizer, CONFIG)
    give_gradients(student, 0, 1.0)
    step.clip(values(0))
    step.apply(values(0))
    weights = [copy.deepcopy(network.state_dict()) for network in (student, teacher)]
    saved = copy.deepcopy(optimizer.state_dict())
    give_gradients(student, 2, 1.0)
    step.clip(values(2))
    step.apply(values(2))
    again = networks()
    for network, state in zip(again, weights, strict=True):
        network.load_state_dict(state)
    restored = build_optimizer(again[0], CONFIG)
    restored.load_state_dict(saved)
    other = OnePassUpdate(*again, restored, CONFIG)
    give_gradients(again[0], 2, 1.0)
    other.clip(values(2))
    other.apply(values(2))
    for one, two in zip((student, teacher), again, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(two.state_dict()[name], value), name


def test_on_a_cpu_torchs_functions_do_it() -> None:
    student = build_student(tiny_recipe())
    assert type(module.update_of(student, teacher_of(student), build_optimizer(student, CONFIG), CONFIG)) is Update
