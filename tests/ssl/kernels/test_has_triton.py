import importlib.util

import pytest
import torch

from midnight.ssl.kernels import has_triton

GPU = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("installed", "capability", "expected"), [(True, (9, 0), True), (True, (7, 5), False), (False, (9, 0), False)]
)
def test_kernels_need_triton_and_an_ampere(
    installed: bool, capability: tuple[int, int], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found" if installed else None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    has_triton.cache_clear()
    try:
        assert has_triton(GPU) is expected
        assert not has_triton(torch.device("cpu"))
    finally:
        has_triton.cache_clear()
