"""A linear layer with what scales its inputs or outputs folded into its weights.

LayerNorm's weight c and bias n before a layer, and LayerScale's r after one, cost a pass over all tokens each, forward
and backward. Folded, they cost one over the weights: W'ᵢⱼ = rᵢ · Wᵢⱼ · cⱼ and b' = r · (b + W n).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Folded(NamedTuple):
    """Of a layer [out, in]: weight and bias in the precision of its products."""

    weight: Tensor
    bias: Tensor


class Unfolded(NamedTuple):
    """Gradients of a layer's weight and bias, of the inputs' scale and shift [in], and of the outputs' scale [out]."""

    weight: Tensor
    bias: Tensor
    scale: Tensor | None
    shift: Tensor | None
    gain: Tensor | None


def fold_inputs(weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, dtype: torch.dtype) -> Folded:
    """W · c and b + W n of a layer whose inputs are scaled by c [in] and shifted by n [in] first."""
    if weight.is_cuda:
        from midnight.ssl.kernels.on_gpu import folding

        return Folded(*folding.fold_inputs(weight, bias, scale, shift, dtype))
    return Folded((weight * scale).to(dtype), (bias + weight @ shift).to(dtype))


def fold_outputs(weight: Tensor, bias: Tensor, gain: Tensor | None, dtype: torch.dtype) -> Folded:
    """r · W and r · b of a layer whose outputs are multiplied by r [out]; None: by 1."""
    if gain is None:
        return Folded(weight.to(dtype), bias.to(dtype))
    if weight.is_cuda:
        from midnight.ssl.kernels.on_gpu import folding

        return Folded(*folding.fold_outputs(weight, bias, gain, dtype))
    return Folded((weight * gain[:, None]).to(dtype), (bias * gain).to(dtype))


def unfold_inputs(of_weight: Tensor, of_bias: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Unfolded:
    """Gradients through `fold_inputs`, of those of the folded weight and bias, both float32; the first is used up."""
    if weight.is_cuda:
        from midnight.ssl.kernels.on_gpu import folding

        own, of_scale, of_shift = folding.unfold_inputs(of_weight, of_bias, weight, scale, shift)
        return Unfolded(own, of_bias, of_scale, of_shift, None)
    of_scale, of_shift = (of_weight * weight).sum(dim=0), of_bias @ weight.float()
    return Unfolded(of_weight * scale + of_bias[:, None] * shift, of_bias, of_scale, of_shift, None)


def unfold_outputs(of_weight: Tensor, of_bias: Tensor, weight: Tensor, bias: Tensor, gain: Tensor | None) -> Unfolded:
    """Gradients through `fold_outputs`, of those of the folded weight and bias, both float32; the first is used up."""
    if gain is None:
        return Unfolded(of_weight, of_bias, None, None, None)
    if weight.is_cuda:
        from midnight.ssl.kernels.on_gpu import folding

        own, along = folding.unfold_outputs(of_weight, weight, gain)
    else:
        own, along = of_weight * gain[:, None], (of_weight * weight).sum(dim=1)
    return Unfolded(own, of_bias * gain, None, None, along + of_bias * bias)
