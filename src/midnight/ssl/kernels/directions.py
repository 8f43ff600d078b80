"""Prototypes: rows of unit length times a length of their own."""

import torch
from torch import Tensor

from midnight.ssl.kernels import LEAST_NORM


def scaled_directions(rows: Tensor, lengths: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Each row [K, C] divided by its norm and multiplied by its length [K, 1] (None: 1), as `dtype`."""
    if rows.is_cuda:
        from midnight.ssl.kernels.on_gpu import directions

        return directions.scaled_directions(rows, lengths, dtype)
    unit = rows / rows.norm(dim=1, keepdim=True).clamp_min(LEAST_NORM)
    return (unit if lengths is None else unit * lengths).to(dtype)


def scaled_directions_backward(grad: Tensor, rows: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gradients of rows [K, C] and of lengths [K, 1], float32, from that of `scaled_directions`' result."""
    if rows.is_cuda:
        from midnight.ssl.kernels.on_gpu import directions

        return directions.scaled_directions_backward(grad, rows, lengths)
    norms, above = rows.norm(dim=1, keepdim=True).clamp_min(LEAST_NORM), grad.float()
    unit = rows / norms
    along = (unit * above).sum(dim=1, keepdim=True)
    across = (above - unit * along) / norms
    return across if lengths is None else across * lengths, along
