"""Small tensors to a GPU, without waiting for it: a copy from memory that is not pinned does wait."""

import functools

import torch
from torch import Tensor


def send(values: Tensor, device: torch.device) -> Tensor:
    """Values on the device, from pinned memory where that is a GPU."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


@functools.lru_cache(maxsize=16)
def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Values float32 [C, 1, 1] on the device; kept, so that they go there once."""
    return torch.tensor(values, device=device).view(-1, 1, 1)
