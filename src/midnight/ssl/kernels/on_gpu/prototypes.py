"""Kernels of `midnight.ssl.kernels.prototypes`: each reads the logits once, in their own precision."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from midnight.ssl.kernels.on_gpu.launch import kernel
from midnight.ssl.kernels.on_gpu.tokens import PROGRAMS, total, width
from midnight.ssl.kernels.targets import AnyTargets, MatchedTargets, ScaledTargets

BLOCK = 2048
"""Prototypes that a program deals with at a time."""


@kernel("count", "programs")
def _sums_of_columns(logits, rows, shift, sums, count, programs, inverse, columns: tl.constexpr, block: tl.constexpr):
    program = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < columns
    largest = tl.load(shift)
    total = tl.zeros((block,), tl.float32)
    for row in range(program, count, programs):
        values = tl.load(logits + row * columns + at, mask=inside, other=0.0).to(tl.float32)
        total += tl.load(rows + row) * tl.exp(values * inverse - largest)
    tl.store(sums + program * columns + at, total, mask=inside)


@kernel()
def _sums_of_rows(logits, scales, shift, sums, inverse, columns: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    largest = tl.load(shift)
    total = tl.zeros((block,), tl.float32)
    for first in range(0, columns, block):
        at = first + tl.arange(0, block)
        inside = at < columns
        values = tl.load(logits + row * columns + at, mask=inside, other=0.0).to(tl.float32)
        total += tl.load(scales + at, mask=inside, other=0.0) * tl.exp(values * inverse - largest)
    tl.store(sums + row, tl.sum(total))


def sums(targets: ScaledTargets, dim: int) -> Tensor:
    """See `midnight.ssl.kernels.prototypes._sums`."""
    logits, inverse = targets.logits, 1 / targets.temperature
    count, columns = logits.shape
    if not count:
        return logits.new_zeros(columns if dim == 0 else 0, dtype=torch.float32)
    block = min(BLOCK, width(columns))
    if dim == 1:
        out = torch.empty(count, dtype=torch.float32, device=logits.device)
        _sums_of_rows((count,), logits, targets.columns, targets.shift, out, inverse, columns, block, warps=8)
        return out
    blocks = triton.cdiv(columns, block)
    programs = max(1, min(count, PROGRAMS // blocks))
    parts = torch.empty(programs, columns, dtype=torch.float32, device=logits.device)
    given = (logits, targets.rows, targets.shift, parts)
    _sums_of_columns((blocks, programs), *given, count, programs, inverse, columns, block, warps=8)
    return total(parts)


@triton.jit
def _targets(teacher, rows, scales, largest, row, at, inside, columns, of_teacher, matched: tl.constexpr):
    if matched:
        start = tl.load(rows + row).to(tl.int64) * columns
        targets = tl.load(teacher + start + at, mask=inside, other=0.0)
    else:
        logits = tl.load(teacher + row * columns + at, mask=inside, other=0.0).to(tl.float32)
        weights = tl.load(rows + row) * tl.load(scales + at, mask=inside, other=0.0)
        targets = weights * tl.exp(logits * of_teacher - largest)
    return targets


@kernel()
def _terms(
    student, teacher, rows, scales, shift, terms, lse, inverse, of_teacher,
    columns: tl.constexpr,
    block: tl.constexpr, matched: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    largest = tl.load(shift).to(tl.float32)
    top = tl.full((block,), -float("inf"), tl.float32)
    total = tl.zeros((block,), tl.float32)
    along = tl.zeros((block,), tl.float32)
    for first in range(0, columns, block):
        at = first + tl.arange(0, block)
        inside = at < columns
        values = tl.load(student + row * columns + at, mask=inside, other=0.0).to(tl.float32) * inverse
        along += values * _targets(teacher, rows, scales, largest, row, at, inside, columns, of_teacher, matched)
        higher = tl.where(inside, tl.maximum(top, values), top)
        kept = tl.where(total > 0.0, total * tl.exp(top - higher), 0.0)
        total = kept + tl.where(inside, tl.exp(values - higher), 0.0)
        top = higher
    most = tl.max(top)
    normaliser = most + tl.log(tl.sum(tl.where(total > 0.0, total * tl.exp(top - most), 0.0)))
    tl.store(lse + row, normaliser)
    tl.store(terms + row, normaliser - tl.sum(along))


def _arguments(targets: AnyTargets, temperature: float, columns: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What the kernels need of the targets, and their numbers."""
    matched = isinstance(targets, MatchedTargets)
    given = (*targets, targets.values, targets.values) if isinstance(targets, MatchedTargets) else targets[:4]
    of_teacher = 1.0 if isinstance(targets, MatchedTargets) else 1 / targets.temperature
    return given, (1 / temperature, of_teacher, columns, min(BLOCK, width(columns)), matched)


def cross_entropy_terms(student: Tensor, targets: AnyTargets, temperature: float) -> tuple[Tensor, Tensor]:
    """See `midnight.ssl.kernels.prototypes.cross_entropy_terms`."""
    count, columns = student.shape
    terms = torch.empty(count, dtype=torch.float32, device=student.device)
    lse = torch.empty_like(terms)
    given, numbers = _arguments(targets, temperature, columns)
    if count:
        _terms((count,), student, *given, terms, lse, *numbers, warps=8)
    return terms, lse


@kernel()
def _backward(
    factors, student, lse, teacher, rows, scales, shift, out, inverse, of_teacher,
    columns: tl.constexpr,
    block: tl.constexpr, matched: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < columns
    values = tl.load(student + row * columns + at, mask=inside, other=0.0).to(tl.float32)
    largest = tl.load(shift).to(tl.float32)
    target = _targets(teacher, rows, scales, largest, row, at, inside, columns, of_teacher, matched)
    softmax = tl.exp(values * inverse - tl.load(lse + row))
    tl.store(out + row * columns + at, tl.load(factors + row) * (softmax - target), mask=inside)


def cross_entropy_backward(
    factors: Tensor, student: Tensor, normalisers: Tensor, targets: AnyTargets, temperature: float
) -> Tensor:
    """See `midnight.ssl.kernels.prototypes.cross_entropy_backward`."""
    count, columns = student.shape
    out = torch.empty_like(student)
    given, numbers = _arguments(targets, temperature, columns)
    if count:
        grid = triton.cdiv(columns, min(BLOCK, width(columns))), count
        _backward(grid, factors, student, normalisers, *given, out, *numbers, warps=8)
    return out
