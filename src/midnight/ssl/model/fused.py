"""A transformer block for GPUs: the same function as `PackedBlock`, with a third of its memory traffic.

Measured, a ViT-g's step waits longer for memory than for its matrix products. So the residual stream is of 16 bits and
is changed in place; a branch reads and writes the rows that keep it only (stochastic depth); LayerNorm's and
LayerScale's weights are folded into the linear layers beside them; what lies between two products is one kernel; and
little is kept for the backward pass. Parameters stay timm's, in float32.
"""

from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from timm.layers import Attention, GluMlp, LayerScale, Mlp, PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from midnight.ssl.kernels import activations, attention, folding, tokens
from midnight.ssl.model.packing import Packing
from midnight.ssl.model.residual import Seen


class Middle(Protocol):
    """What lies between a branch's two linear layers."""

    def forward(self, hidden: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Its result for the first layer's, and what its backward pass needs besides."""

    def backward(self, grad: Tensor, hidden: Tensor, kept: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of `hidden`, the result (again), and the gradient's sum over rows."""


class _Attend(NamedTuple):
    heads: int
    layout: Packing

    def forward(self, hidden: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        out, normalisers = attention.attend(hidden, self.heads, self.layout)
        return out, (out, normalisers)

    def backward(self, grad: Tensor, hidden: Tensor, kept: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        out, normalisers = kept
        below, sums = attention.attend_backward(grad, hidden, out, normalisers, self.heads, self.layout)
        return below, out, sums


class _Activate(NamedTuple):
    gated: bool

    def forward(self, hidden: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return activations.activate(hidden, self.gated), ()

    def backward(self, grad: Tensor, hidden: Tensor, kept: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        return activations.activate_backward(grad, hidden, self.gated)


class _Branch(torch.autograd.Function):
    """x + r · (second(middle(first(norm(x))))) at the rows seen, in place; so is the gradient of x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: Tensor, shift: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor,
        bias2: Tensor, gain: Tensor | None, middle: Middle, seen: Seen, eps: float,
    ) -> Tensor:  # fmt: skip
        normed, rstd = tokens.gather_norm(x, seen.rows, eps, x.dtype)
        first = folding.fold_inputs(weight1, bias1, norm, shift, x.dtype)
        hidden = torch.addmm(first.bias, normed, first.weight.t())
        mixed, kept = middle.forward(hidden)
        second = folding.fold_outputs(weight2, bias2, gain, x.dtype)
        tokens.add_(x, torch.addmm(second.bias, mixed, second.weight.t()), seen.rows, seen.scales)
        ctx.mark_dirty(x)
        ctx.save_for_backward(
            norm, shift, weight1, weight2, bias2, gain, normed, rstd, first.weight, second.weight, hidden, *kept
        )
        ctx.middle, ctx.seen = middle, seen
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        norm, shift, weight1, weight2, bias2, gain, normed, rstd, first, second, hidden, *kept = ctx.saved_tensors
        grad, seen = grad.contiguous(), ctx.seen
        above, of_bias2 = tokens.take(grad, seen.rows, seen.scales, normed.dtype)
        of_hidden, mixed, of_bias1 = ctx.middle.backward(above @ second, hidden, tuple(kept))
        after = folding.unfold_outputs(_product(above, mixed), of_bias2, weight2, bias2, gain)
        before = folding.unfold_inputs(_product(of_hidden, normed), of_bias1, weight1, norm, shift)
        tokens.norm_backward_(grad, of_hidden @ first, normed, rstd, seen.rows)
        found = (before.scale, before.shift, before.weight, before.bias, after.weight, after.bias, after.gain)
        given = (norm, shift, weight1, norm, weight2, norm, gain)
        cast_back = [g if g is None else g.to(p.dtype) for g, p in zip(found, given, strict=True)]
        return grad, *cast_back, None, None, None


def _product(above: Tensor, below: Tensor) -> Tensor:
    """aboveᵀ · below in float32, which the sum is kept in anyway: [n, out], [n, in] → [out, in]."""
    if above.is_cuda and above.dtype != torch.float32:
        return torch.mm(above.t(), below, out_dtype=torch.float32)
    return (above.t() @ below).float()


def fusable(vit: nn.Module) -> bool:
    """Whether all blocks of a timm model are of the kind that `fused_block` computes."""
    embed = cast(Any, vit).patch_embed
    patches = type(embed) is PatchEmbed and _plain(embed.norm) and not embed.flatten and not embed.dynamic_img_pad
    return patches and all(_fusable(block) for block in cast(Any, vit).blocks)


def _fusable(block: nn.Module) -> bool:
    if not isinstance(block, Block) or type(block.attn) is not Attention:
        return False
    attn, mlp = cast(Any, block.attn), cast(Any, block.mlp)
    scales = (block.ls1, block.ls2)
    return (
        _plain(attn.q_norm, attn.k_norm, attn.norm, attn.gate, mlp.norm)
        and not (attn.attn_drop.p or attn.proj_drop.p or mlp.drop1.p or mlp.drop2.p)
        and attn.head_dim in (16, 32, 64, 128)
        and all(
            type(layer) is nn.Linear and layer.bias is not None for layer in (attn.qkv, attn.proj, mlp.fc1, mlp.fc2)
        )
        and all(isinstance(norm, nn.LayerNorm) and norm.bias is not None for norm in (block.norm1, block.norm2))
        and all(isinstance(scale, (LayerScale, nn.Identity)) for scale in scales)
        and _gated(mlp) is not None
    )


def _plain(*modules: nn.Module | None) -> bool:
    return all(module is None or isinstance(module, nn.Identity) for module in modules)


def _gated(mlp: nn.Module) -> bool | None:
    """Whether an MLP is a SwiGLU; None if it is neither that nor a plain one with GELU."""
    if type(mlp) is GluMlp and not mlp.gate_last and isinstance(mlp.act, nn.SiLU):
        return True
    plain = type(mlp) is Mlp and isinstance(mlp.act, nn.GELU) and getattr(mlp.act, "approximate", "none") == "none"
    return False if plain else None


def fused_block(block: Block, x: Tensor, attending: Seen, mixing: Seen, needed: Tensor | None = None) -> Tensor:
    """What `block` makes of packed tokens x [N, D], in place; the branches see what is given.

    Of the rows `needed` only, int64 [R], if given: the MLP, which takes each token by itself, then sees no others.
    """
    attn, mlp = cast(Attention, block.attn), cast(Any, block.mlp)
    middle = _Attend(attn.num_heads, attending.layout)
    x = _branch(x, block.norm1, attn.qkv, attn.proj, block.ls1, middle, attending)
    if needed is not None:
        mixing = _of(mixing, needed, len(x))
        x = x.index_select(0, needed)
    return _branch(x, block.norm2, mlp.fc1, mlp.fc2, block.ls2, _Activate(bool(_gated(mlp))), mixing)


def _branch(
    x: Tensor, norm: nn.Module, first: nn.Module, second: nn.Module, scale: nn.Module, middle: Middle, seen: Seen
) -> Tensor:
    gain = scale.gamma if isinstance(scale, LayerScale) else None
    weights = (norm.weight, norm.bias, first.weight, first.bias, second.weight, second.bias, gain)
    return cast(Tensor, _Branch.apply(x, *weights, middle, seen, norm.eps))


def _of(seen: Seen, needed: Tensor, count: int) -> Seen:
    """What a branch sees of a stream of which `needed` is left of `count` rows: all, some of them multiplied by 0.

    How many of them the branch keeps is known to the device only, and is not waited for.
    """
    if seen.rows is None or seen.scales is None:
        return seen
    factors = torch.zeros(count, device=needed.device).index_copy(0, seen.rows.long(), seen.scales)
    return Seen(None, factors[needed], seen.layout)


def patch_tokens(embed: PatchEmbed, images: Tensor) -> Tensor:
    """What timm's patch embedding makes of images [B, 3, H, W]: [B, rows, columns, D], by a matrix product.

    A convolution whose windows do not overlap is one; cuDNN takes ten times as long for it.
    """
    side = embed.patch_size[0]
    patches = images.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 1, 3, 5).flatten(3)
    spare = -patches.shape[-1] % 8  # products want rows of whole 16 bytes
    weight = embed.proj.weight.flatten(1)
    return F.linear(F.pad(patches, (0, spare)), F.pad(weight, (0, spare)), embed.proj.bias)


def needed_rows(layout: Packing, prefix: int, hidden: Tensor) -> Tensor:
    """Where, in packed tokens, the CLS tokens of all crops lie, and then some of the first group's patches.

    Args:
        layout: the crops.
        prefix: tokens of each before its patches.
        hidden: which of the first group's samples · patches, int64 [M].

    Returns:
        int64 [samples of all groups + M].
    """
    starts, start = [], 0
    for group in layout:
        starts.append(torch.arange(start, start + group.tokens, group.length, device=hidden.device))
        start += group.tokens
    patches = layout[0].length - prefix
    return torch.cat([*starts, hidden // patches * layout[0].length + prefix + hidden % patches])
