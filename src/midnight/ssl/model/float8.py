"""Linear layers whose three matrix products (output, input's gradient, weight's gradient) are of 8-bit floats.

Each tensor is scaled so that its largest magnitude is the format's: e4m3 (3 bits of mantissa) for activations and
weights, e5m2 (wider range) for gradients, as in "FP8 formats for deep learning" (Micikevicius et al. 2022). Scales are
of the tensor at hand, not of past steps, so there is no state to save. On a CPU torch computes the same, slowly.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from midnight.errors import ConfigError

FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2
MULTIPLE = 16
"""Of which the inner and outer sizes of these products must be multiples; rows may be as many as they like."""
CAPABILITY = (8, 9)
"""Of the first GPUs with such products: Ada and Hopper."""
Scaled = tuple[Tensor, Tensor]
"""A float8 tensor and its scale, float32 []: the values are their product."""


def scaled(value: Tensor, dtype: torch.dtype) -> Scaled:
    """`value` in an 8-bit format, of any shape; its largest magnitude becomes the format's largest number."""
    scale = value.abs().amax().float().clamp(min=1e-12) / torch.finfo(dtype).max
    return (value.float() / scale).to(dtype), scale


def multiply(a: Scaled, b: Scaled, dtype: torch.dtype) -> Tensor:
    """a · bᵀ of a [m, k] and b [n, k], as [m, n] of `dtype`; k and n must be multiples of 16."""
    return torch._scaled_mm(a[0].contiguous(), b[0].contiguous().t(), a[1], b[1], out_dtype=dtype)


def transposed(a: Scaled) -> Scaled:
    """aᵀ, its rows padded with zeros to a multiple of 16."""
    return F.pad(a[0].t().view(torch.uint8), (0, -a[0].shape[0] % MULTIPLE)).view(a[0].dtype), a[1]


class _Linear(torch.autograd.Function):
    """x [n, in] · weight [out, in]ᵀ, of the dtype given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        inputs = scaled(x, FORWARD)
        # Of the weight no copy is kept: FSDP frees it until the backward pass.
        ctx.save_for_backward(*inputs, weight)
        ctx.dtype = x.dtype
        return multiply(inputs, scaled(weight, FORWARD), dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        values, scale, weight = ctx.saved_tensors
        grads = scaled(grad, BACKWARD)
        of_x = multiply(grads, transposed(scaled(weight, FORWARD)), ctx.dtype)
        return of_x, multiply(transposed(grads), transposed((values, scale)), weight.dtype), None


class Float8Linear(nn.Linear):
    """torch's own linear layer, parameters and names alike, with products of 8-bit floats while it is trained."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] → [..., out], of autocast's dtype where that is on, else of the input's."""
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        out = cast(Tensor, _Linear.apply(input.flatten(0, -2), self.weight, dtype)).unflatten(0, input.shape[:-1])
        return out if self.bias is None else out + self.bias.to(dtype)


def use_float8(module: nn.Module, device: torch.device) -> None:
    """Let all linear layers below `module` compute in float8, in place; the state dict stays as it is.

    Raises:
        ConfigError: the GPU has no such products, or a layer's sizes don't fit them.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise ConfigError(f"training.precision: float8 needs a GPU of Hopper's kind or newer, not {name}; say bfloat16")
    for name, layer in module.named_modules():
        if type(layer) is nn.Linear:
            if layer.in_features % MULTIPLE or layer.out_features % MULTIPLE:
                sizes = f"{layer.in_features} × {layer.out_features}"
                raise ConfigError(f"training.precision: float8 needs multiples of {MULTIPLE}, {name} is {sizes}")
            layer.__class__ = Float8Linear
