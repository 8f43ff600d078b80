import pytest
import torch
from torch import Tensor

from midnight.ssl.kernels.prototypes import cross_entropy_terms
from midnight.ssl.kernels.targets import MatchedTargets
from midnight.ssl.loss import cross_entropy as module
from midnight.ssl.loss.cross_entropy import Pairing, _matches, cross_entropy
from midnight.ssl.loss.dino import dino_loss
from midnight.ssl.loss.sinkhorn import scaled_sinkhorn, sinkhorn


def targets(*shape: int) -> Tensor:
    return torch.softmax(torch.randn(*shape) / 0.05, dim=-1)


def materialised(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return -(teacher * torch.log_softmax(student / temperature, dim=-1)).sum(-1)


@pytest.fixture(params=[1, 100, 1 << 25], ids=["a row", "some rows", "all rows"])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.CHUNK, "cpu", request.param)


@pytest.mark.usefixtures("chunk")
def test_values_and_gradients_are_the_closed_form_in_float64() -> None:
    torch.manual_seed(0)
    student, teacher, weights = torch.randn(7, 50), targets(7, 50), torch.randn(7)
    ours, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    terms = cross_entropy(ours, teacher, 0.1)
    expected = materialised(exact, teacher.double(), 0.1)
    torch.testing.assert_close(terms.double(), expected, atol=1e-5, rtol=1e-6)
    (terms * weights).sum().backward()
    (expected * weights.double()).sum().backward()
    assert ours.grad is not None and exact.grad is not None
    torch.testing.assert_close(ours.grad.double(), exact.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize(("crops", "views"), [(2, 2), (5, 2), (4, 3), (3, 1)])
def test_all_pairs_of_dino_with_their_gradients(crops: int, views: int) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(crops, 6, 20), targets(views, 6, 20)
    ours, plain = student.clone().requires_grad_(), student.clone().requires_grad_()
    pairs = [(s, t) for s in range(crops) for t in range(views) if s != t]
    expected = torch.stack([materialised(plain[s], teacher[t], 0.1).mean() for s, t in pairs]).mean()
    loss = dino_loss(ours, teacher, 0.1)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, plain.grad, atol=1e-6, rtol=1e-5)


def test_rows_can_share_targets() -> None:
    student, teacher = torch.randn(6, 9), targets(2, 9)
    terms = cross_entropy(student, teacher, 0.1, [Pairing(2 * block, 0, 2) for block in range(3)])
    torch.testing.assert_close(terms, materialised(student, teacher.repeat(3, 1), 0.1), atol=1e-5, rtol=1e-5)


def test_the_students_logits_are_left_as_they_are_and_their_type_is_that_of_the_gradient() -> None:
    logits = torch.randn(4, 12).bfloat16().requires_grad_()
    before = logits.detach().clone()
    terms = cross_entropy(logits, targets(4, 12), 0.1)
    terms.sum().backward()
    assert terms.dtype == torch.float32 and logits.grad is not None and logits.grad.dtype == torch.bfloat16
    assert torch.equal(logits.detach(), before)


def test_large_logits_stay_finite() -> None:
    logits = (torch.randn(3, 8) * 1e4).requires_grad_()
    cross_entropy(logits, targets(3, 8), 0.1).sum().backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_no_rows() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    cross_entropy(logits, torch.zeros(0, 5), 0.1).sum().backward()
    assert logits.grad is not None and logits.grad.shape == (0, 5)


@pytest.mark.parametrize("rows", [6, 0])
def test_targets_as_scalings_are_the_same_targets(rows: int) -> None:
    generator = torch.Generator().manual_seed(4)
    teacher = torch.randn(rows, 16, generator=generator)
    student = torch.randn(rows, 16, generator=generator)
    scaled = scaled_sinkhorn(teacher, 0.07)
    torch.testing.assert_close(scaled.dense(), sinkhorn(teacher, 0.07), atol=1e-6, rtol=1e-5)
    found = []
    for targets in (scaled, sinkhorn(teacher, 0.07)):
        logits = student.clone().requires_grad_(True)
        terms = cross_entropy(logits, targets, 0.1)
        (terms * torch.arange(rows)).sum().backward()
        found.append((terms.detach(), logits.grad))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


def test_each_row_is_matched_with_its_pairings_row() -> None:
    pairings = (Pairing(0, 4, 2), Pairing(2, 0, 3))
    assert _matches(pairings, torch.device("cpu")).tolist() == [4, 5, 0, 1, 2]
    generator = torch.Generator().manual_seed(5)
    student, teacher = torch.randn(5, 12, generator=generator), torch.randn(6, 12, generator=generator).softmax(1)
    matched = MatchedTargets(teacher, _matches(pairings, student.device))
    terms, _ = cross_entropy_terms(student, matched, 0.1)
    torch.testing.assert_close(terms, cross_entropy(student, teacher, 0.1, pairings))
