"""Triton's kernels on the CPU."""

import importlib
import importlib.util
from typing import Any

import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class _IsInt(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, int)


class _OfOneElement(int, metaclass=_IsInt):
    """`int` also of arrays [1]: Triton 3.6's interpreter asks for that, and numpy 2.4 no longer allows it."""

    def __new__(cls, value: Any) -> int:  # type: ignore[misc]
        return int(getattr(value, "item", lambda: value)())


def interpret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let kernels run on `DEVICE`; where there is no GPU, by Triton's interpreter (see tests/conftest.py).

    Skips the test where Triton is not installed.
    """
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed (it is on Linux)")
    if DEVICE.type == "cpu":
        interpreter = importlib.import_module("triton.runtime.interpreter")
        monkeypatch.setattr(interpreter, "int", _OfOneElement, raising=False)
