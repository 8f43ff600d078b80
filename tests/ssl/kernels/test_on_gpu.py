"""Each Triton kernel computes what its plain torch twin computes: on a GPU, or on the CPU by Triton's interpreter."""

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from midnight.ssl.kernels import activations, attention, directions, folding, prototypes, tokens
from midnight.ssl.kernels.targets import MatchedTargets, ScaledTargets
from midnight.ssl.model.packing import Group
from tests.ssl.kernels.interpreted import DEVICE, interpret

every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
every_choice = pytest.mark.parametrize("some", [False, True], ids=["all rows", "some rows"])


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules with the kernels, by name."""
    interpret(monkeypatch)
    names = ("tokens", "activations", "folding", "attention", "prototypes", "directions")
    return {name: importlib.import_module(f"midnight.ssl.kernels.on_gpu.{name}") for name in names}


def made(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def on(*values: Any) -> list[Any]:
    return [value.clone().to(DEVICE) if isinstance(value, Tensor) else value for value in values]


def assert_close(ours: Any, twin: Any, dtype: torch.dtype = torch.float32) -> None:
    """Equal up to sums in another order and, of 16 bits, one rounding."""
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 2e-2, "rtol": 1e-2}
    for one, other in zip(ours, twin, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        torch.testing.assert_close(one.cpu(), other, **tolerance)


def rows_of(some: bool) -> tuple[Tensor | None, Tensor | None, int]:
    if not some:
        return None, None, 13
    return torch.tensor([11, 2, 7, 0, 5], dtype=torch.int32), torch.tensor([1.5, 2.0, 0.5, 1.0, 3.0]), 5


@every_choice
@every_dtype
def test_tokens_forward(kernels: Any, dtype: torch.dtype, some: bool) -> None:
    rows, scales, count = rows_of(some)
    stream = made(13, 40, dtype=dtype) * 3 + 1
    ours = kernels["tokens"].gather_norm(*on(stream, rows), 1e-6, dtype)
    assert_close(ours, tokens.gather_norm(stream, rows, 1e-6, dtype), dtype)
    changed, branch = stream.clone(), made(count, 40, dtype=dtype, seed=1)
    there = on(changed)[0]
    kernels["tokens"].add_(there, *on(branch, rows, scales))
    tokens.add_(changed, branch, rows, scales)
    assert_close([there], [changed], dtype)
    assert not torch.equal(changed, stream)


@every_choice
@every_dtype
def test_tokens_backward(kernels: Any, dtype: torch.dtype, some: bool) -> None:
    rows, scales, count = rows_of(some)
    grad, above, normed = (
        made(13, 40, dtype=dtype),
        made(count, 40, dtype=dtype, seed=1),
        made(count, 40, dtype=dtype, seed=2),
    )
    rstd = made(count, seed=3).abs()
    assert_close(kernels["tokens"].take(*on(grad, rows, scales), dtype), tokens.take(grad, rows, scales, dtype), dtype)
    there = on(grad)[0]
    kernels["tokens"].norm_backward_(there, *on(above, normed, rstd, rows))
    tokens.norm_backward_(grad, above, normed, rstd, rows)
    assert_close([there], [grad], dtype)


@every_dtype
def test_more_rows_than_programs(kernels: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tokens", "activations", "prototypes"):
        monkeypatch.setattr(kernels[name], "PROGRAMS", 3)
    values = made(11, 20, dtype=dtype)
    assert_close(kernels["tokens"].take(*on(values, None, None), dtype), tokens.take(values, None, None, dtype), dtype)
    grad = made(11, 10, dtype=dtype, seed=1)
    assert_close(
        kernels["activations"].activate_backward(*on(grad, values), True),
        activations.activate_backward(grad, values, True),
        dtype,
    )


@pytest.mark.parametrize("gated", [False, True], ids=["GELU", "SwiGLU"])
@every_dtype
def test_activations(kernels: Any, dtype: torch.dtype, gated: bool) -> None:
    hidden, grad = made(7, 24, dtype=dtype), made(7, 12 if gated else 24, dtype=dtype, seed=1)
    assert_close([kernels["activations"].activate(*on(hidden), gated)], [activations.activate(hidden, gated)], dtype)
    ours = kernels["activations"].activate_backward(*on(grad, hidden), gated)
    assert_close(ours, activations.activate_backward(grad, hidden, gated), dtype)


@every_dtype
def test_folding(kernels: Any, dtype: torch.dtype) -> None:
    weight, bias, scale, shift, gain = (
        made(70, 66),
        made(70, seed=1),
        made(66, seed=2),
        made(66, seed=3),
        made(70, seed=4),
    )
    ours = kernels["folding"].fold_inputs(*on(weight, bias, scale, shift), dtype)
    assert_close(ours, folding.fold_inputs(weight, bias, scale, shift, dtype), dtype)
    ours = kernels["folding"].fold_outputs(*on(weight, bias, gain), dtype)
    assert_close(ours, folding.fold_outputs(weight, bias, gain, dtype), dtype)
    of_weight, of_bias = made(70, 66, seed=5), made(70, seed=6)
    twin = folding.unfold_inputs(of_weight.clone(), of_bias, weight, scale, shift)
    ours = kernels["folding"].unfold_inputs(*on(of_weight, of_bias, weight, scale, shift))
    assert_close(ours, [twin.weight, twin.scale, twin.shift])
    after = folding.unfold_outputs(of_weight.clone(), of_bias, weight, bias, gain)
    own, along = kernels["folding"].unfold_outputs(*on(of_weight, weight, gain))
    assert_close([own, along.cpu() + of_bias * bias], [after.weight, after.gain])


# Triton's interpreter multiplies no matrices of bfloat16.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16 if DEVICE.type == "cuda" else torch.float16], ids=str)
def test_attention(kernels: Any, dtype: torch.dtype) -> None:
    layout, heads = (Group(2, 70), Group(3, 9)), 2
    qkv, grad = made(167, 3 * heads * 16, dtype=dtype), made(167, heads * 16, dtype=dtype, seed=1)
    assert len(kernels["attention"].tiles_of(layout, 64, DEVICE).start) == 2 * 2 + 3
    out, normalisers = attention.attend(qkv, heads, layout)
    assert_close(kernels["attention"].attend(*on(qkv), heads, layout), (out, normalisers), dtype)
    twin = attention.attend_backward(grad, qkv, out, normalisers, heads, layout)
    below, sums = kernels["attention"].attend_backward(*on(grad, qkv, out, normalisers), heads, layout)
    assert_close([below], [twin[0]], dtype)
    torch.testing.assert_close(sums.cpu(), twin[1], atol=2e-2, rtol=1e-2)
    assert_close([sums], [below.cpu().float().sum(dim=0)], torch.bfloat16)


@pytest.mark.parametrize("rows", [9, 0])
@every_dtype
def test_prototypes(kernels: Any, dtype: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels["prototypes"], "BLOCK", 16)
    teacher, student = made(rows, 40, dtype=dtype), made(rows, 40, dtype=dtype, seed=1)
    targets = ScaledTargets(teacher, made(rows, seed=2).abs(), made(40, seed=3).abs() / 40, torch.tensor(3.0), 0.5)
    there = ScaledTargets(*on(*targets))
    for dim in (0, 1):
        assert_close([kernels["prototypes"].sums(there, dim)], [prototypes._sums(targets, dim)])
    assert_cross_entropy(kernels["prototypes"], student, targets, there, dtype)
    matched = MatchedTargets(made(3, 40, seed=5).softmax(dim=1), torch.arange(rows, dtype=torch.int32) % 3)
    assert_cross_entropy(kernels["prototypes"], student, matched, MatchedTargets(*on(*matched)), dtype)


def assert_cross_entropy(kernels: Any, student: Tensor, targets: Any, there: Any, dtype: torch.dtype) -> None:
    rows = len(student)
    terms, normalisers = prototypes.cross_entropy_terms(student, targets, 0.1)
    ours = kernels.cross_entropy_terms(*on(student), there, 0.1)
    assert_close(ours, (terms, normalisers))
    factors = made(rows, seed=4)
    twin = prototypes.cross_entropy_backward(factors, student, normalisers, targets, 0.1)
    ours = kernels.cross_entropy_backward(*on(factors, student, normalisers), there, 0.1)
    assert_close([ours], [twin], dtype)


@pytest.mark.parametrize("trained", [False, True], ids=["of length 1", "of their own length"])
@every_dtype
def test_directions(kernels: Any, dtype: torch.dtype, trained: bool) -> None:
    rows, lengths = made(5, 24), made(5, 1, seed=1) if trained else None
    ours = kernels["directions"].scaled_directions(*on(rows, lengths), dtype)
    assert_close([ours], [directions.scaled_directions(rows, lengths, dtype)], dtype)
    grad = made(5, 24, dtype=dtype, seed=2)
    ours = kernels["directions"].scaled_directions_backward(*on(grad, rows, lengths))
    assert_close(ours, directions.scaled_directions_backward(grad, rows, lengths))


@pytest.mark.parametrize("trained", [False, True], ids=["of length 1", "of their own length"])
def test_gradients_of_directions_are_autograds(trained: bool) -> None:
    rows, lengths = made(5, 24).requires_grad_(True), made(5, 1, seed=1).requires_grad_(True) if trained else None
    out = torch.nn.functional.normalize(rows, dim=-1)
    out = out if lengths is None else out * lengths
    torch.testing.assert_close(directions.scaled_directions(rows, lengths, torch.float32), out)
    grad = made(5, 24, seed=2)
    inputs = [value for value in (rows, lengths) if value is not None]
    expected = torch.autograd.grad(out, inputs, grad)
    with torch.no_grad():
        ours = directions.scaled_directions_backward(grad, rows, lengths)
    for one, other in zip(ours, expected, strict=False):
        torch.testing.assert_close(one, other)
