"""Attention over packed crops: each sees itself only. Queries, keys and values come as one tensor, as a layer gives.

Made for crops of few hundred tokens: nothing is padded in memory, and all crop sizes go in one launch.
"""

import torch
from torch import Tensor

from midnight.ssl.model.packing import Packing, unpack


def attend(qkv: Tensor, heads: int, layout: Packing) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ / √E) v within each crop.

    Args:
        qkv: [n, 3 · heads · E]: all heads' queries, then keys, then values.
        heads: how many.
        layout: the crops.

    Returns:
        [n, heads · E], and the softmaxes' normalisers as base-2 logarithms, float32 [heads, n].
    """
    if qkv.is_cuda:
        from midnight.ssl.kernels.on_gpu import attention

        return attention.attend(qkv, heads, layout)
    mixed, normalisers = [], []
    for part in unpack(qkv, layout):
        *_, value, scores = _scores(part, heads)
        normalisers.append(scores.logsumexp(dim=-1).transpose(0, 1).flatten(1) * _LOG2_E)
        mixed.append((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2).flatten(0, 1))
    return torch.cat(mixed).to(qkv.dtype), torch.cat(normalisers, dim=1)


def attend_backward(
    grad: Tensor, qkv: Tensor, out: Tensor, normalisers: Tensor, heads: int, layout: Packing
) -> tuple[Tensor, Tensor]:
    """What comes back through `attend`.

    Args:
        grad: of its result, [n, heads · E].
        qkv: what it was given.
        out: its result.
        normalisers: likewise.
        heads: how many.
        layout: the crops.

    Returns:
        Gradient of qkv, and that summed over tokens, float32 [3 · heads · E].
    """
    if qkv.is_cuda:
        from midnight.ssl.kernels.on_gpu import attention

        return attention.attend_backward(grad, qkv, out, normalisers, heads, layout)
    parts = []
    for part, above in zip(unpack(qkv, layout), unpack(grad, layout), strict=True):
        query, key, value, scores = _scores(part, heads)
        weights, over = scores.softmax(dim=-1), above.float().unflatten(-1, (heads, -1)).transpose(1, 2)
        of_weights = over @ value.transpose(-1, -2)
        of_scores = weights * (of_weights - (of_weights * weights).sum(dim=-1, keepdim=True)) * query.shape[-1] ** -0.5
        found = [of_scores @ key, of_scores.transpose(-1, -2) @ query, weights.transpose(-1, -2) @ over]
        parts.append(torch.stack(found).permute(1, 3, 0, 2, 4).flatten(2).flatten(0, 1))
    below = torch.cat(parts)
    return below.to(qkv.dtype), below.sum(dim=0)


_LOG2_E = 1.4426950408889634


def _scores(part: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values and scores, float32 [samples, heads, T, E or T], of one crop size [samples, T, 3·D]."""
    query, key, value = part.float().unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return query, key, value, query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
