"""Launching a Triton kernel from Python in a few microseconds.

Triton looks at every argument of every launch, which takes longer than many of the kernels: a step has thousands, and
a ViT-B's was bound by them. Here a compiled kernel is found by the types of its tensors and the values of its
constants, and nothing else is looked at.
"""

import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

ALIGNMENT = 16
"""Bytes, of which a tensor's address is a multiple, or all its values are read one by one."""


class Kernel:
    """A Triton function; to be called with the grid first, then its arguments in order."""

    def __init__(self, function: Callable[..., None], numbers: tuple[str, ...]) -> None:
        self.function = triton.jit(do_not_specialize=list(numbers))(function)
        self.constant = [p.annotation is tl.constexpr for p in inspect.signature(function).parameters.values()]
        self.compiled: dict[Any, Any] = {}

    def __call__(self, grid: tuple[int, ...], *arguments: Any, warps: int = 4, stages: int = 3) -> None:
        """Launch on the current stream of the current device, where the tensors are."""
        key: list[Any] = [warps, stages, arguments[0].get_device()]
        for argument, constant in zip(arguments, self.constant, strict=True):
            if isinstance(argument, Tensor):
                key.append((argument.dtype, argument.data_ptr() % ALIGNMENT == 0))
            elif constant:
                key.append(argument)
        found = self.compiled.get(tuple(key))
        if found is None:
            launched = self.function[grid](*arguments, num_warps=warps, num_stages=stages)
            if launched is not None:  # Triton's interpreter has nothing to keep
                self.compiled[tuple(key)] = launched
        else:
            found[(*grid, 1, 1)[:3]](*arguments)


def kernel(*numbers: str) -> Callable[[Callable[..., None]], Kernel]:
    """Make a Triton function of one; `numbers` are its integer arguments that are no constants."""
    return lambda function: Kernel(function, numbers)
