"""A training state as files, one per process: which part each writes, and how the parts become tensors again.

Why not torch.distributed.checkpoint: its index is a pickle, which runs whatever code somebody put into it. Here each
is a safetensors file, whose header says for each piece where in the whole tensor it belongs; no byte of a
checkpoint is ever unpickled. Pieces are cut along the first dimension only, as FSDP2 cuts parameters. So any number of
processes, sharded or not, reads what any other wrote.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

PLACES = "places"
"""Entry of a shard's metadata: JSON of {name: [first row, [shape of the whole]]}."""


@dataclass(frozen=True)
class Piece:
    """Rows `start` … of a tensor of `shape`; `values` are this process's own memory, not the network's."""

    start: int
    shape: tuple[int, ...]
    values: Tensor


def own_pieces(tensors: Mapping[str, Tensor], rank: int, world: int) -> dict[str, Piece]:
    """Copies, on the CPU, of what this process writes: its shards, and its share of what all processes hold alike.

    Args:
        tensors: the same names in the same order on all processes.
        rank: this process.
        world: all processes.
    """
    pieces, load = {}, [0] * world
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            local, start = tensor.to_local(), first_row(tensor)
            mine = local.numel() > 0
        else:
            local, start, owner = tensor, 0, load.index(min(load))
            load[owner] += tensor.nbytes
            mine = owner == rank
        if mine:
            copy = local.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            pieces[name] = Piece(start, tuple(tensor.shape), copy)
    return pieces


def first_row(tensor: DTensor) -> int:
    """Where this process's part of a sharded tensor begins: FSDP2 cuts the first dimension as `torch.chunk` does."""
    mesh = tensor.device_mesh
    rows = -(-tensor.shape[0] // mesh.size())
    return min(mesh.get_local_rank() * rows, tensor.shape[0])


def write_pieces(path: Path, pieces: Mapping[str, Piece]) -> None:
    """Write pieces to a file and wait until the disk has it.

    Raises:
        OSError, SafetensorError: the disk is full or the folder can't be written.
    """
    places = {name: [piece.start, list(piece.shape)] for name, piece in pieces.items()}
    save_file({name: piece.values for name, piece in pieces.items()}, path, metadata={PLACES: json.dumps(places)})
    with path.open("rb+") as file:
        os.fsync(file.fileno())


class PieceFiles(Mapping[str, Tensor]):
    """The tensors of a checkpoint by name; each is read only when it is asked for."""

    def __init__(self, files: list[Path]) -> None:
        """Read the files' headers.

        Raises:
            OSError, ValueError, KeyError, SafetensorError: a file is missing or no shard.
        """
        self._files = [safe_open(path, framework="pt") for path in files]
        self._shapes: dict[str, list[int]] = {}
        self._pieces: dict[str, list[tuple[int, int]]] = {}
        for number, file in enumerate(self._files):
            for name, (start, shape) in json.loads(file.metadata()[PLACES]).items():
                self._shapes[name] = shape
                self._pieces.setdefault(name, []).append((start, number))

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, name: str) -> Tensor:
        """The whole tensor, on the CPU."""
        parts = [self._files[number].get_tensor(name) for _, number in sorted(self._pieces[name])]
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        if list(tensor.shape) != self._shapes[name]:
            raise ValueError(f"{name}: {list(tensor.shape)} of {self._shapes[name]} in the checkpoint's files")
        return tensor


@torch.no_grad()
def fill(target: Tensor, whole: Tensor) -> None:
    """Copy a whole tensor into a tensor of its shape, or this process's rows of it into a sharded one.

    Raises:
        ValueError: the shapes differ.
    """
    if target.shape != whole.shape:
        raise ValueError(f"a tensor of {list(whole.shape)} where {list(target.shape)} is needed")
    if isinstance(target, DTensor):
        local, start = target.to_local(), first_row(target)
        local.copy_(whole[start : start + local.shape[0]])
    else:
        target.copy_(whole)
