"""Between the two linear layers of an MLP: GELU, or SwiGLU of a double width."""

import torch
import torch.nn.functional as F
from torch import Tensor


def activate(hidden: Tensor, gated: bool) -> Tensor:
    """GELU(hidden) [n, H], or of [n, 2·H] = [a, b] SiLU(a) · b [n, H]; computed in float32."""
    if hidden.is_cuda:
        from midnight.ssl.kernels.on_gpu import activations

        return activations.activate(hidden, gated)
    if not gated:
        return F.gelu(hidden.float()).to(hidden.dtype)
    first, second = hidden.float().chunk(2, dim=1)
    return (F.silu(first) * second).to(hidden.dtype)


def activate_backward(grad: Tensor, hidden: Tensor, gated: bool) -> tuple[Tensor, Tensor, Tensor]:
    """What comes back through `activate`, whose result is computed again rather than kept.

    Args:
        grad: of the result, [n, H].
        hidden: what `activate` was given.
        gated: likewise.

    Returns:
        Gradient of `hidden`; the result; the gradient's sum over rows, float32.
    """
    if grad.is_cuda:
        from midnight.ssl.kernels.on_gpu import activations

        return activations.activate_backward(grad, hidden, gated)
    with torch.enable_grad():
        inner = hidden.detach().requires_grad_(True)
        result = activate(inner, gated)
    (below,) = torch.autograd.grad(result, inner, grad.to(result.dtype))
    return below, result.detach(), below.float().sum(dim=0)
