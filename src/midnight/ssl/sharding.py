"""FSDP2: each process holds a part of every weight and of its optimizer state, and borrows the rest block by block."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from midnight.config import Recipe
from midnight.errors import ConfigError
from midnight.ssl import distributed
from midnight.ssl.checkpoint.pieces import fill
from midnight.ssl.model.network import Network, build_student


def shard(network: Network, device: torch.device) -> None:
    """Split a network over all processes, in place: each block by itself, then the rest of the backbone, each head.

    What a process borrowed is given back after each forward pass, also at the top: a teacher has no backward pass
    that would do it, and would go on with weights from before its last update.

    Args:
        network: with the same weights on all processes, on its device.
        device: where it is.

    Raises:
        ConfigError: there is one process only, which has nobody to share with.
    """
    if not distributed.active():
        raise ConfigError("training.sharding: fsdp needs more than one process; set training.gpus or sharding: none")
    mesh = init_device_mesh(device.type, (distributed.world(),))
    for module in [*network.backbone.vit.blocks, *network.parts()]:
        fully_shard(module, mesh=mesh, reshard_after_forward=True)


def synchronise_gradients(network: Network, wanted: bool) -> None:
    """Whether the next backward pass averages sharded gradients: only the last before an optimizer step need."""
    for part in network.parts():
        if isinstance(part, FSDPModule):
            part.set_requires_gradient_sync(wanted)


def local_part(value: Tensor) -> Tensor:
    """What this process holds of a tensor: a view, so that changes count."""
    return value.to_local() if isinstance(value, DTensor) else value


def gathered(network: Network, recipe: Recipe) -> Network:
    """The network itself or, if it is sharded, a whole copy on the CPU; then all processes must call."""
    state = network.state_dict()
    if not any(distributed.sharded(value) for value in state.values()):
        return network
    copy = build_student(recipe).requires_grad_(False).eval()
    for name, target in copy.state_dict().items():
        fill(target, distributed.whole(state[name]))
    return copy


def training_tensors(student: Network, teacher: Network, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors that the rest of a run depends on, by names that are the same on whatever number of processes."""
    tensors = {
        f"{role}.{name}": value
        for role, network in {"student": student, "teacher": teacher}.items()
        for name, value in network.state_dict().items()
    }
    for name, parameter in student.named_parameters():
        tensors |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state.get(parameter, {}).items()}
    return tensors


def restore_tensors(
    student: Network, teacher: Network, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Copy what `training_tensors` gave back in, sharded or not.

    Raises:
        KeyError, ValueError: a tensor is missing or of another shape.
    """
    for role, network in {"student": student, "teacher": teacher}.items():
        for name, target in network.state_dict().items():
            fill(target, tensors[f"{role}.{name}"])
    names = {parameter: name for name, parameter in student.named_parameters()}
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {number: _moments(names[parameter], parameter, tensors) for number, parameter in enumerate(ordered)}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(
        {"state": {number: value for number, value in state.items() if value}, "param_groups": groups}
    )


def _moments(name: str, parameter: nn.Parameter, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """AdamW's state of one parameter; empty where it has none yet."""
    if f"optimizer.{name}.step" not in tensors:
        return {}
    out = {"step": tensors[f"optimizer.{name}.step"]}
    for key in ("exp_avg", "exp_avg_sq"):
        out[key] = torch.zeros_like(parameter.detach())
        fill(out[key], tensors[f"optimizer.{name}.{key}"])
    return out
