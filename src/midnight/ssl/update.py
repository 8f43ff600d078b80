"""An optimizer step: gradients clipped, AdamW, and the teacher's moving average."""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from midnight.config import Optimizer
from midnight.sending import send
from midnight.ssl import distributed
from midnight.ssl.kernels import has_triton
from midnight.ssl.kernels.update import Chunks, chunks_of
from midnight.ssl.model.network import Network, update_teacher
from midnight.ssl.optimizer import apply_schedule, clip_gradients
from midnight.ssl.schedules import Values

ALIGNMENT = 16
"""Bytes, as torch allocates; a gradient may be a view of something larger."""


class Update:
    """By torch's own functions, one after the other."""

    def __init__(self, student: Network, teacher: Network, optimizer: torch.optim.AdamW, config: Optimizer) -> None:
        self.student, self.teacher, self.optimizer, self.config = student, teacher, optimizer, config

    def clip(self, values: Values) -> Tensor:
        """Limit the gradients of backbone and heads, and prepare the step; the norm of all before, float scalar."""
        apply_schedule(self.optimizer, values)
        return clip_gradients(self.student, self.config.clip_grad)

    def apply(self, values: Values) -> None:
        """Step; only after `clip` of the same gradients, for the same values."""
        self.optimizer.step()
        update_teacher(self.student, self.teacher, values.momentum)


class OnePassUpdate(Update):
    """The same in one pass over memory, on a GPU: gradients stay as they are, and are clipped as they are read.

    AdamW's state lies where torch's has it, so that checkpoints are the same. A parameter without a gradient is left
    alone, as torch does.
    """

    def __init__(self, student: Network, teacher: Network, optimizer: torch.optim.AdamW, config: Optimizer) -> None:
        super().__init__(student, teacher, optimizer, config)
        self.pairs = [
            list(zip(own.parameters(), others.parameters(), strict=True))
            for own, others in zip(student.parts(), teacher.parts(), strict=True)
        ]
        self.steps: dict[Tensor, int] = {}
        self.live: list[tuple[Tensor, Tensor]] = []
        self.states: list[dict[str, Tensor]] = []
        self.arguments: tuple[Any, ...] = ()

    def clip(self, values: Values) -> Tensor:
        """See `Update.clip`. All that the step needs goes to the device here, while that is still at work."""
        from midnight.ssl.kernels.on_gpu import update

        apply_schedule(self.optimizer, values)
        parts = [[pair for pair in pairs if pair[0].grad is not None] for pairs in self.pairs]
        self.live = [pair for pairs in parts for pair in pairs]
        device, defaults = self.live[0][0].device, self.optimizer.defaults
        chunks = _chunks(tuple(own.numel() for own, _ in self.live), device)
        pointers, numbers = _sent(self._pointers(), torch.int64, device), _sent(self._numbers(), torch.float32, device)
        norms = update.norms(pointers[1], chunks, [0, *itertools.accumulate(map(len, parts))])
        factors = (self.config.clip_grad / (norms + 1e-6)).clamp(max=1.0)  # as torch's clip_grad_norm_
        clips = torch.cat([factor.expand(len(pairs)) for factor, pairs in zip(factors, parts, strict=True)])
        self.arguments = pointers, numbers, clips, chunks, defaults["betas"], defaults["eps"], 1 - values.momentum
        return norms.norm()

    def apply(self, values: Values) -> None:
        """See `Update.apply`."""
        from midnight.ssl.kernels.on_gpu import update

        update.update_(*self.arguments)
        for own, _ in self.live:
            self.steps[own] += 1
        torch._foreach_add_([state["step"] for state in self.states], 1.0)
        rest = [pair for pairs in self.pairs for pair in pairs if pair[0].grad is None]
        if rest:
            torch._foreach_lerp_([other for _, other in rest], [own for own, _ in rest], 1 - values.momentum)
        if self.teacher.centres is not None:
            self.teacher.centres.move()

    def _pointers(self) -> list[list[int]]:
        """Addresses of all weights, gradients, moments and the teacher's weights."""
        self.states = [self._state(own) for own, _ in self.live]
        tensors = [
            (own, _grad(own), state["exp_avg"], state["exp_avg_sq"], other)
            for (own, other), state in zip(self.live, self.states, strict=True)
        ]
        return [[tensor.data_ptr() for tensor in each] for each in zip(*tensors, strict=True)]

    def _numbers(self) -> list[list[float]]:
        """What AdamW multiplies each weight by, its step's length, and the correction of the squares' mean."""
        settings = {own: group for group in self.optimizer.param_groups for own in group["params"]}
        rows = []
        for own, _ in self.live:
            group, step = settings[own], self.steps[own] + 1
            first, second = (1 - beta**step for beta in group["betas"])
            rows.append((1 - group["lr"] * group["weight_decay"], group["lr"] / first, math.sqrt(second)))
        return [list(each) for each in zip(*rows, strict=True)]

    def _state(self, own: Tensor) -> dict[str, Tensor]:
        """AdamW's state of a parameter, begun if there is none."""
        state = self.optimizer.state[own]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=own.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(own.detach()), torch.zeros_like(own.detach())
        if own not in self.steps:
            self.steps[own] = round(float(state["step"]))
        return state


@functools.lru_cache(maxsize=4)
def _chunks(sizes: tuple[int, ...], device: torch.device) -> Chunks:
    return chunks_of(sizes, device)


def _grad(own: Tensor) -> Tensor:
    """A parameter's gradient as the kernel reads it: its numbers in order, from a multiple of 16 bytes on."""
    grad = cast(Tensor, own.grad)
    if not grad.is_contiguous() or grad.data_ptr() % ALIGNMENT:
        grad = own.grad = grad.clone(memory_format=torch.contiguous_format)
    return grad


def _sent(values: Sequence[Sequence[float]], dtype: torch.dtype, device: torch.device) -> Tensor:
    return send(torch.tensor(values, dtype=dtype), device)


def update_of(student: Network, teacher: Network, optimizer: torch.optim.AdamW, config: Optimizer) -> Update:
    """The faster one where it can be: whole float32 tensors on a GPU that Triton has kernels for."""
    whole = all(
        parameter.dtype == torch.float32 and not distributed.sharded(parameter) and parameter.is_contiguous()
        for parameter in student.parameters()
    )
    fits = whole and has_triton(next(student.parameters()).device)
    return (OnePassUpdate if fits else Update)(student, teacher, optimizer, config)
