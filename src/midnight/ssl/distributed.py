"""What differs between one process and many; every function works without a process group."""

from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

BUCKET_BYTES = 64 * 2**20
"""Of gradients that are averaged at once."""


def active() -> bool:
    """Whether somebody (torchrun, Slurm, a test) has initialised a process group."""
    return dist.is_available() and dist.is_initialized()


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if active() else 1


def rank() -> int:
    """This process's number, 0 for the one that writes files."""
    return dist.get_rank() if active() else 0


def barrier() -> None:
    """Wait for all processes."""
    if active():
        dist.barrier()


def all_sum(value: Tensor) -> Tensor:
    """The sum over processes of a tensor of one shape, in place; carries no gradient."""
    if active():
        dist.all_reduce(value)
    return value


def all_max(value: Tensor) -> Tensor:
    """The element-wise maximum over processes, in place; carries no gradient."""
    if active():
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value


def same_everywhere(values: Iterable[Tensor]) -> None:
    """Give all processes the first one's tensors, in place: those that each has made may differ in the last bit."""
    if active():
        for value in values:
            dist.broadcast(value, src=0)


def gather(rows: Tensor) -> Tensor:
    """Rows [N, D] of all processes as [world · N, D], in order of rank; gradients flow back to each.

    Every process must bring the same N.
    """
    if not active():
        return rows
    from torch.distributed.nn.functional import all_gather

    return torch.cat(list(all_gather(rows.contiguous())))


def gather_plain(value: Tensor) -> list[Tensor]:
    """The tensors of all processes, all of one shape and type, in order of rank; carries no gradient."""
    if not active():
        return [value]
    values = [torch.empty_like(value) for _ in range(world())]
    dist.all_gather(values, value.contiguous())
    return values


def buckets(tensors: Iterable[Tensor], limit: int) -> Iterator[list[Tensor]]:
    """Tensors of one type in their order, in lists of at most `limit` bytes (a larger tensor alone)."""
    size, held = 0, dict[torch.dtype, list[Tensor]]()
    for tensor in tensors:
        size += tensor.nbytes
        if held and size > limit:
            yield from held.values()
            size, held = tensor.nbytes, {}
        held.setdefault(tensor.dtype, []).append(tensor)
    yield from held.values()


def average_gradients(module: nn.Module, limit: int = BUCKET_BYTES) -> None:
    """Replace every gradient by its mean over processes; a parameter without one counts as zero.

    Gradients travel flattened together, since a collective per parameter costs hundreds of starts. Those of sharded
    parameters are left alone: FSDP has averaged them in the backward pass.

    Args:
        module: all its parameters that are trained.
        limit: bytes per all-reduce, which are also the bytes that it takes for a while.
    """
    if not active():
        return
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad and not sharded(parameter)]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in buckets((parameter.grad for parameter in parameters if parameter.grad is not None), limit):
        flat = torch.cat([gradient.flatten() for gradient in bucket]).div_(world())
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in bucket])
        torch._foreach_copy_(bucket, [part.view_as(gradient) for part, gradient in zip(parts, bucket, strict=True)])


def sharded(value: Tensor) -> bool:
    """Whether each process holds only a part of the tensor."""
    return isinstance(value, DTensor)


def whole(value: Tensor) -> Tensor:
    """The tensor itself or, of a sharded one, all parts together; then all processes must call."""
    return value.full_tensor() if isinstance(value, DTensor) else value
