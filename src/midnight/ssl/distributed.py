"""What differs between one process and many; every function works without a process group."""

import torch
import torch.distributed as dist
from torch import Tensor, nn


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


def gather(rows: Tensor) -> Tensor:
    """Rows [N, D] of all processes as [world · N, D], in order of rank; gradients flow back to each.

    Every process must bring the same N.
    """
    if not active():
        return rows
    from torch.distributed.nn.functional import all_gather

    return torch.cat(list(all_gather(rows.contiguous())))


def average_gradients(module: nn.Module) -> None:
    """Replace every gradient by its mean over processes; a parameter without one counts as zero."""
    if not active():
        return
    for parameter in module.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.div_(world())
            dist.all_reduce(parameter.grad)
