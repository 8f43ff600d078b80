"""What a fused block and the losses over many prototypes are made of: each as plain torch, and as a Triton kernel.

The functions here take tensors on any device. On a GPU they run the kernel of the same name in `on_gpu`; elsewhere
plain torch, which is also what the kernels are tested against.
"""

import functools
import importlib.util

import torch

CAPABILITY = (8, 0)
"""Of the first GPUs with matrix products of bfloat16: Ampere."""
LEAST_NORM = 1e-12
"""That a row is divided by, as torch's `normalize` has it."""


@functools.cache
def has_triton(device: torch.device) -> bool:
    """Whether the kernels run on this device."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= CAPABILITY
