from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from midnight.ssl.loss.kde import kde_loss
from midnight.ssl.masking import step_masks
from midnight.ssl.model.network import Network, build_student, teacher_of, update_teacher
from midnight.ssl.step import Batch, compute_losses, normalise, prepare, regularize, teacher_targets
from tests.ssl.tiny import batch_at, tiny_recipe

CPU = torch.device("cpu")


def networks(**change: object) -> tuple[Network, Network]:
    student = build_student(tiny_recipe(backbone={"drop_path": 0.0}, **change))
    return student, teacher_of(student)


def make_batch(local: int = 2, probability: float = 0.5) -> Batch:
    masks = torch.from_numpy(step_masks(0, 0, 0, 8, (4, 4), probability, (0.1, 0.5)))
    return prepare(batch_at(0, local=local), masks, tiny_recipe().crops, CPU)


def test_crops_are_normalised_with_all_first_views_first() -> None:
    crops = torch.zeros(3, 2, 3, 4, 4, dtype=torch.uint8)
    crops[:, 1] = 255
    crops[2, 0] = 51
    out = normalise(crops, tiny_recipe().crops, CPU)
    assert out.shape == (6, 3, 4, 4)
    torch.testing.assert_close(out[:, 0, 0, 0], torch.tensor([-1.0, -1.0, -0.6, 1.0, 1.0, 1.0]))


@pytest.mark.parametrize("local", [0, 2])
@pytest.mark.parametrize("regularizer", ["kde", "koleo", "none"])
def test_the_total_is_the_weighted_sum(local: int, regularizer: str) -> None:
    config = tiny_recipe(loss={"regularizer": regularizer, "regularizer_weight": 0.3, "ibot": 0.5}).loss
    losses = compute_losses(*networks(), make_batch(local), 0.05, config)
    scale = 1 if local else 2 / 3  # DINOv2 counts one local crop's term at least
    expected = scale * losses.dino + 0.5 * losses.ibot + 0.3 * losses.regularizer
    torch.testing.assert_close(losses.total, expected)
    assert (float(losses.regularizer) == 0) == (regularizer == "none")
    assert losses.targets.dino.shape == (2, 4, 32)


def test_the_teacher_sees_what_is_hidden_from_the_student() -> None:
    teacher, batch = networks()[1], make_batch()
    uncovered = replace(batch, masks=torch.zeros_like(batch.masks), hidden=batch.rows)
    targets, expected = (teacher_targets(teacher, one, 0.05, 3) for one in (batch, uncovered))
    assert batch.masks.any()
    assert torch.equal(targets.cls, expected.cls)
    assert torch.equal(targets.ibot, expected.ibot)


def test_gradients_reach_every_parameter_of_the_student_and_none_of_the_teacher() -> None:
    student, teacher = networks()
    compute_losses(student, teacher, make_batch(), 0.05, tiny_recipe().loss).total.backward()
    without = [name for name, p in student.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert all(parameter.grad is None for parameter in teacher.parameters())


class Waits(TorchDispatchMode):
    """Notes operations for whose result the host waits on a GPU: values and numbers of elements."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name.startswith("index") and isinstance(args[1], list | tuple) else ()
        masked = any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in indices)
        if masked or name in ("_local_scalar_dense", "nonzero", "masked_select", "unique2", "repeat_interleave"):
            self.found.add(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("regularizer", ["kde", "koleo"])
def test_a_prepared_batch_needs_no_waiting_for_the_device(regularizer: str) -> None:
    student = build_student(tiny_recipe()).train()
    teacher, batch = teacher_of(student), make_batch()
    with Waits() as waits:
        loss = compute_losses(student, teacher, batch, 0.05, tiny_recipe(loss={"regularizer": regularizer}).loss).total
        loss.backward()
        update_teacher(student, teacher, 0.9)
    assert waits.found == set()
    with Waits() as waits:
        compute_losses(student, teacher, replace(batch, hidden=None), 0.05, tiny_recipe().loss)
    assert waits.found == {"nonzero"}


def test_where_hidden_patches_lie_is_known_or_found() -> None:
    batch = make_batch()
    assert batch.hidden is not None
    assert torch.equal(replace(batch, hidden=None).rows, batch.hidden)
    assert torch.equal(batch.masks.flatten()[batch.hidden], torch.ones(len(batch.hidden), dtype=torch.bool))


@pytest.mark.parametrize("change", [{}, {"activation_checkpointing": True}])
def test_losses_are_those_of_separate_passes(change: dict[str, bool]) -> None:
    recipe = tiny_recipe(backbone={"drop_path": 0.0}, training=change)
    student = build_student(recipe).train()
    teacher, batch = teacher_of(student), make_batch()
    gradients = []
    for packable in (True, False):
        student.backbone.packable = packable
        student.zero_grad()
        losses = compute_losses(student, teacher, batch, 0.05, recipe.loss)
        losses.total.backward()
        gradients.append([losses.total.detach(), *(value.grad for value in student.parameters())])
    for packed, separate in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, separate, atol=1e-5, rtol=1e-4)


def test_without_hidden_patches_ibot_is_zero() -> None:
    losses = compute_losses(*networks(), make_batch(probability=0.0), 0.05, tiny_recipe().loss)
    assert float(losses.ibot) == 0
    assert torch.isfinite(losses.total)


def test_crops_of_one_tile_are_never_driven_apart() -> None:
    cls = torch.randn(8, 6)
    expected = kde_loss(cls[:4], 5.0) + kde_loss(cls[4:], 5.0)
    torch.testing.assert_close(regularize(cls, tiny_recipe().loss), expected)
