"""Attention of timm's blocks over packed tokens: crops see themselves only."""

import functools
import importlib
import importlib.util
import logging
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Attention
from torch import Tensor

from midnight.ssl.model.packing import Group, Packing, unpack

log = logging.getLogger(__name__)
XFORMERS_ON = {"cuda"}
"""Kinds of device that it is asked for."""


def packed_attention(attn: Attention, x: Tensor, layout: Packing) -> Tensor:
    """What timm's `attn` makes of each crop of packed tokens [N, D] by itself, as [N, D]."""
    qkv = attn.qkv(x).unflatten(-1, (3, attn.num_heads, attn.head_dim))
    dropout = attn.attn_drop.p if attn.training else 0.0
    together = _use_xformers(qkv)
    parts = [qkv[None]] if together else unpack(qkv, layout)
    mixed = []
    for part in parts:
        q, k, v = part.unbind(2)
        q, k = attn.q_norm(q).to(v.dtype), attn.k_norm(k).to(v.dtype)
        if together:
            mixed.append(_xformers(q, k, v, layout, dropout).flatten(0, 1))
        else:
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
            mixed.append(F.scaled_dot_product_attention(q, k, v, dropout_p=dropout).transpose(1, 2).flatten(0, 1))
    out = attn.norm(torch.cat(mixed).flatten(1))
    if attn.gate is not None:
        out = out * attn.gate(x).sigmoid()
    projected: Tensor = attn.proj_drop(attn.proj(out))
    return projected


def _use_xformers(qkv: Tensor) -> bool:
    """One block-diagonal kernel for all crop sizes, where there is one; compiled blocks take torch's own."""
    if qkv.device.type not in XFORMERS_ON or torch.compiler.is_compiling():
        return False
    return xformers_works(qkv.device, qkv.dtype, qkv.shape[-1])


def settle(attn: Attention, tokens: Tensor) -> None:
    """Find out now which kernels `packed_attention` will take for such tokens.

    That runs a small backward pass, which within activation checkpointing would count as one of the block's own.
    """
    kind = tokens.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tokens.dtype
    if kind in XFORMERS_ON:
        xformers_works(tokens.device, dtype, attn.head_dim)


@functools.cache
def xformers_works(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether xformers has kernels for this, forward and backward; where it is installed and has not, that is logged.

    It has none if its import fails (as it does for another torch), or if it raises NotImplementedError. Whatever else
    goes wrong (no memory, a broken device, an ImportError within a kernel) is raised.
    """
    if importlib.util.find_spec("xformers") is None:
        return False
    try:
        importlib.import_module("xformers.ops")
    except ImportError as error:
        _log_fallback(f"xformers can't be imported, install its release for torch {torch.__version__}", error)
        return False
    try:
        with torch.enable_grad():
            probe = torch.zeros(1, 3, 1, head_dim, device=device, dtype=dtype, requires_grad=True)
            _xformers(probe, probe, probe, (Group(1, 1), Group(1, 2)), 0.0).sum().backward()
    except NotImplementedError as error:
        _log_fallback(f"xformers has no kernel for {dtype} and heads of {head_dim} on {device}", error)
        return False
    return True


def _log_fallback(why: str, error: Exception) -> None:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    log.warning("attention by torch: %s (%s)", why, reason[0])


def _xformers(q: Tensor, k: Tensor, v: Tensor, layout: Packing, dropout: float) -> Tensor:
    """Block-diagonal attention of [1, N, heads, head_dim]."""
    from xformers import ops

    mask = _block_diagonal(layout, q.device)
    mixed: Tensor = ops.memory_efficient_attention(q, k, v, attn_bias=mask, p=dropout)
    return mixed


@functools.lru_cache(maxsize=16)
def _block_diagonal(layout: Packing, device: torch.device) -> Any:
    """The mask of a layout, kept: making one copies its lengths to the device."""
    from xformers.ops import fmha

    lengths = [group.length for group in layout for _ in range(group.samples)]
    return fmha.BlockDiagonalMask.from_seqlens(lengths, device=device)
