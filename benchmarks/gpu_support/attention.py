"""Attention of packed crops: the project's kernels beside torch's."""

import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from midnight.ssl.kernels import attention
from midnight.ssl.model.packing import Group, Packing, unpack

HEADS, DIM = 24, 64
STUDENT = (Group(57, 261), Group(230, 54))
"""What a branch sees of 48 tiles with 2 × 224 px and 8 × 98 px, four in ten dropped."""
TEACHER = (Group(96, 261),)
Call = Callable[[], Any]


def compared(device: torch.device, small: bool) -> Iterator[dict[str, Any]]:
    """Milliseconds forward, and forward and backward, of each kind; and how far from ours in float32."""
    for name, layout in {"student": STUDENT, "teacher": TEACHER}.items():
        crops = tuple(Group(2, group.length) for group in layout) if small else layout
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        count = sum(group.tokens for group in crops)
        qkv = torch.randn(count, 3 * HEADS * DIM, device=device, dtype=dtype)
        grad = torch.randn(count, HEADS * DIM, device=device, dtype=dtype)
        for kind, (forward, both) in _kinds(qkv, grad, crops).items():
            row: dict[str, Any] = {"crops": name, "kind": kind}
            try:
                row |= {"forward_ms": _milliseconds(forward, device), "both_ms": _milliseconds(both, device)}
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}"[:300]
            yield row


def _kinds(qkv: Tensor, grad: Tensor, layout: Packing) -> dict[str, tuple[Call, Call]]:
    def ours() -> tuple[Tensor, Tensor]:
        return attention.attend(qkv, HEADS, layout)

    def ours_backward() -> Tensor:
        return attention.attend_backward(grad, qkv, *ours(), HEADS, layout)

    kinds: dict[str, tuple[Call, Call]] = {"ours": (ours, ours_backward)}
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION) if qkv.is_cuda else (SDPBackend.MATH,):
        kinds[backend.name] = _by_torch(qkv, grad, layout, backend)
    if qkv.is_cuda:
        kinds["varlen"] = _varlen(qkv, grad, layout)
    return kinds


def _by_torch(qkv: Tensor, grad: Tensor, layout: Packing, backend: SDPBackend) -> tuple[Call, Call]:
    leaf = qkv.clone().requires_grad_(True)

    def forward() -> Tensor:
        mixed = []
        for part in unpack(leaf.unflatten(-1, (3, HEADS, DIM)), layout):
            query, key, value = (each.transpose(1, 2) for each in part.unbind(2))
            with sdpa_kernel([backend]):
                mixed.append(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(0, 1))
        return torch.cat(mixed).flatten(1)

    def both() -> None:
        leaf.grad = None
        forward().backward(grad)

    return forward, both


def _varlen(qkv: Tensor, grad: Tensor, layout: Packing) -> tuple[Call, Call]:
    leaf = qkv.clone().requires_grad_(True)
    lengths = [group.length for group in layout for _ in range(group.samples)]
    ends = torch.tensor([0, *lengths], device=qkv.device).cumsum(0).int()

    def forward() -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        query, key, value = leaf.unflatten(-1, (3, HEADS, DIM)).unbind(1)
        mixed: Tensor = varlen_attn(query, key, value, ends, ends, max(lengths), max(lengths))
        return mixed.flatten(1)

    def both() -> None:
        leaf.grad = None
        forward().backward(grad)

    return forward, both


def tuned(device: torch.device, small: bool) -> Iterator[dict[str, Any]]:
    """The student's attention and a row's normalisation with other launch parameters."""
    if device.type != "cuda":
        return
    from midnight.ssl.kernels.on_gpu import attention as own
    from midnight.ssl.kernels.on_gpu import tokens

    count = sum(group.tokens for group in STUDENT)
    qkv, grad, stream = (
        torch.randn(count, columns * HEADS * DIM, device=device, dtype=torch.bfloat16) for columns in (3, 1, 1)
    )
    for number in (1, 2, 4, 8):
        with mock.patch.object(tokens, "warps", return_value=number):
            ms = _milliseconds(lambda: tokens.gather_norm(stream, None, 1e-6, torch.bfloat16), device)
        yield {"kernel": "gather_norm", "warps": number, "ms": ms}
    launches = [
        own.Launch(*sizes, warps, stages)
        for sizes in ((64, 64), (64, 32), (128, 64), (128, 32), (64, 128))
        for warps in (4, 8)
        for stages in (1, 2, 3)
    ]
    out = own.attend(qkv, HEADS, STUDENT)
    for launch in launches:
        row: dict[str, Any] = {"kernel": "attend", **launch._asdict()}
        try:
            row["forward_ms"] = _milliseconds(lambda launch=launch: own.attend(qkv, HEADS, STUDENT, launch), device)
            row["backward_ms"] = _milliseconds(
                lambda launch=launch: own.attend_backward(grad, qkv, *out, HEADS, STUDENT, launch), device
            )
        except Exception as error:
            row["failed"] = f"{type(error).__name__}: {error}"[:100]
        yield row


def _milliseconds(call: Call, device: torch.device, repetitions: int = 20) -> float:
    for _ in range(3):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(repetitions if device.type == "cuda" else 1):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return round((time.perf_counter() - start) / repetitions * 1e3, 3)
    return round((time.perf_counter() - start) * 1e3, 3)
