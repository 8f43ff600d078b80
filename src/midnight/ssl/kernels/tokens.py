"""Between the residual stream [N, D] and a branch, which sees the tokens of some rows of it only.

LayerNorm's weight and bias are no part of this: they are folded into the linear layer that follows (`folding`).
"""

import torch
from torch import Tensor


def gather_norm(stream: Tensor, rows: Tensor | None, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows of the stream, each less its mean and divided by its standard deviation.

    Args:
        stream: [N, D].
        rows: int32 [n], no row twice; None: all.
        eps: added to the variance.
        dtype: of the result; computed in float32.

    Returns:
        Normalised rows [n, D] of `dtype`, and 1 / standard deviation float32 [n].
    """
    if stream.is_cuda:
        from midnight.ssl.kernels.on_gpu import tokens

        return tokens.gather_norm(stream, rows, eps, dtype)
    seen = (stream if rows is None else stream[rows]).float()
    centred = seen - seen.mean(dim=1, keepdim=True)
    rstd = torch.rsqrt(centred.square().mean(dim=1) + eps)
    return (centred * rstd[:, None]).to(dtype), rstd


def norm_backward_(grad: Tensor, of_normed: Tensor, normed: Tensor, rstd: Tensor, rows: Tensor | None) -> None:
    """Add to the stream's gradient, in place, what comes back through `gather_norm`.

    Args:
        grad: of the stream, [N, D].
        of_normed: gradient of the normalised rows, [n, D].
        normed, rstd: what `gather_norm` gave.
        rows: as given to `gather_norm`.
    """
    if grad.is_cuda:
        from midnight.ssl.kernels.on_gpu import tokens

        tokens.norm_backward_(grad, of_normed, normed, rstd, rows)
        return
    above, unit = of_normed.float(), normed.float()
    mean, along = above.mean(dim=1, keepdim=True), (above * unit).mean(dim=1, keepdim=True)
    own = rstd[:, None] * (above - mean - unit * along)
    if rows is None:
        grad.add_(own)
    else:
        grad[rows] = (grad[rows].float() + own).to(grad.dtype)


def add_(stream: Tensor, branch: Tensor, rows: Tensor | None, scales: Tensor | None) -> None:
    """stream[rows] += scales · branch, in place.

    Args:
        stream: [N, D].
        branch: [n, D].
        rows: int32 [n], no row twice; None: all.
        scales: float32 [n]; None: 1.
    """
    if stream.is_cuda:
        from midnight.ssl.kernels.on_gpu import tokens

        tokens.add_(stream, branch, rows, scales)
        return
    scaled = branch.float() if scales is None else branch.float() * scales[:, None]
    if rows is None:
        stream.add_(scaled)
    else:
        stream[rows] = (stream[rows].float() + scaled).to(stream.dtype)


def take(grad: Tensor, rows: Tensor | None, scales: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What comes back through `add_`: scales · grad[rows] as `dtype` [n, D], and its sum over rows float32 [D]."""
    if grad.is_cuda:
        from midnight.ssl.kernels.on_gpu import tokens

        return tokens.take(grad, rows, scales, dtype)
    seen = (grad if rows is None else grad[rows]).float()
    scaled = seen if scales is None else seen * scales[:, None]
    return scaled.to(dtype), scaled.sum(dim=0)
