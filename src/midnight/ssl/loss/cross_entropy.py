"""Cross-entropy with soft targets over many prototypes, a chunk of rows at a time."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from midnight.ssl.kernels import has_triton
from midnight.ssl.kernels.prototypes import cross_entropy_backward, cross_entropy_terms
from midnight.ssl.kernels.targets import MatchedTargets, ScaledTargets

CHUNK = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Logits per chunk, by kind of device: 4 MiB for each float32 copy that lives at a time, so that caches hold it; on a
GPU 128 MiB (256 rows of 131,072 prototypes), so that few kernels do it [our choice]."""


class Pairing(NamedTuple):
    """`rows` rows of the student from `student` on are held against as many of the teacher from `teacher` on."""

    student: int
    teacher: int
    rows: int


def cross_entropy(
    student: Tensor, teacher: Tensor | ScaledTargets, temperature: float, pairings: Sequence[Pairing] | None = None
) -> Tensor:
    """−Σ t · log softmax(s / temperature) along the last dimension, as lse − ⟨t, s / temperature⟩.

    No float32 copy of all logits is ever made, nor one of all softmaxes in the backward pass: that goes chunk by chunk
    as well and writes the gradient in the logits' own type. The teacher gets no gradient.

    Args:
        student: logits [N, K].
        teacher: probabilities [M, K] that sum to 1, float32; or what they are computed from, row by row the student's.
        temperature: of the student.
        pairings: which rows belong together, each of the student's once; row by row if None.

    Returns:
        float32 [N].
    """
    pairs = [Pairing(0, 0, len(student))] if pairings is None else pairings
    if isinstance(teacher, ScaledTargets):
        return cast(Tensor, _ByKernels.apply(student, temperature, type(teacher), *teacher))
    if has_triton(student.device):
        matched = MatchedTargets(teacher, _matches(tuple(pairs), student.device))
        return cast(Tensor, _ByKernels.apply(student, temperature, type(matched), *matched))
    terms: Tensor = _CrossEntropy.apply(student, teacher, temperature, pairs)
    return terms


def _chunks(pairings: Sequence[Pairing], logits: Tensor) -> Iterator[tuple[slice, slice]]:
    """The rows of the student and of the teacher, few enough at a time."""
    most = max(1, CHUNK.get(logits.device.type, CHUNK["cuda"]) // logits.shape[-1])
    for student, teacher, rows in pairings:
        for start in range(0, rows, most):
            size = min(most, rows - start)
            yield slice(student + start, student + start + size), slice(teacher + start, teacher + start + size)


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    return logits.to(torch.float32, copy=True).div_(temperature)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float, pairings: Sequence[Pairing]) -> Tensor:
        normalisers = torch.empty(len(student), dtype=torch.float32, device=student.device)
        agreement = torch.empty_like(normalisers)
        for rows, others in _chunks(pairings, student):
            scaled = _scaled(student[rows], temperature)
            torch.logsumexp(scaled, dim=-1, out=normalisers[rows])
            torch.sum(scaled.mul_(teacher[others]), dim=-1, out=agreement[rows])
        ctx.save_for_backward(student, teacher, normalisers)
        ctx.temperature, ctx.pairings = temperature, pairings
        return normalisers - agreement

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """(softmax − target) / temperature, times the gradient of each row."""
        student, teacher, normalisers = ctx.saved_tensors
        out = torch.empty_like(student)
        factors = grad / ctx.temperature
        for rows, others in _chunks(ctx.pairings, student):
            softmax = _scaled(student[rows], ctx.temperature).sub_(normalisers[rows, None]).exp_()
            out[rows] = softmax.sub_(teacher[others]).mul_(factors[rows, None])
        return out, None, None, None


@functools.lru_cache(maxsize=16)
def _matches(pairings: tuple[Pairing, ...], device: torch.device) -> Tensor:
    """The teacher's row for each of the student's, int32 [N]; kept, since to make it copies to the device."""
    rows = torch.empty(sum(pairing.rows for pairing in pairings), dtype=torch.int32)
    for student, teacher, count in pairings:
        rows[student : student + count] = torch.arange(teacher, teacher + count)
    return rows.to(device)


class _ByKernels(torch.autograd.Function):
    """Row by row, a pass over the logits each way; of targets in the form given, taken apart for autograd's sake."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, temperature: float, form: type, *parts: Any) -> Tensor:
        terms, normalisers = cross_entropy_terms(student, form(*parts), temperature)
        tensors = [part for part in parts if isinstance(part, Tensor)]
        ctx.save_for_backward(student, normalisers, *tensors)
        ctx.temperature, ctx.form, ctx.numbers = temperature, form, parts[len(tensors) :]
        return terms

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        student, normalisers, *tensors = ctx.saved_tensors
        targets = ctx.form(*tensors, *ctx.numbers)
        factors = grad / ctx.temperature
        found = cross_entropy_backward(factors, student, normalisers, targets, ctx.temperature)
        return found, *[None] * (2 + len(tensors) + len(ctx.numbers))
