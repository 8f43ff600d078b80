"""Files of weights, opened without running what is in them; what can't be used is named."""

import argparse
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from midnight.errors import ConfigError

State = dict[str, Tensor]

WRAPPERS = ("teacher", "model", "state_dict")
"""Under which key a checkpoint keeps its weights."""
PLAIN_TYPES: list[Any] = [argparse.Namespace]
"""Types besides tensors and Python's own that may be in a file: of values only, and never used [DINO, DINOv2]."""
WRAPPED = re.compile(r"_fsdp_wrapped_module\.|_orig_mod\.|_checkpoint_wrapped_module\.")
"""What torch's wrappers add within names."""
FORBIDDEN = re.compile(r"GLOBAL ([A-Za-z_]\w*(?:\.\w+)+)")


def read_weights(path: Path) -> State:
    """The tensors of a .safetensors file or of a PyTorch file (read with weights_only).

    Of a training checkpoint with a student and a teacher, the teacher's; names are without those of torch's wrappers.

    Raises:
        ConfigError: the file is missing, unreadable, a part only, or holds no tensors.
    """
    if not path.is_file():
        raise ConfigError(f"backbone.init: no weights file {path}; see config/README.md for what init accepts")
    state: Any = load_file_safely(path)
    while isinstance(state, dict) and (inner := next((name for name in WRAPPERS if name in state), None)):
        state = state[inner]
    found = state.items() if isinstance(state, dict) else ()
    tensors = {WRAPPED.sub("", name): value for name, value in found if isinstance(value, Tensor)}
    if not tensors:
        raise ConfigError(f"{path}: holds no tensors")
    if part := next((name for name in tensors if "flat_param" in name), None):
        raise ConfigError(
            f"{path}: holds {part}, one process's part of a sharded model; use the whole teacher that DINOv2 writes as "
            "eval/*/teacher_checkpoint.pth"
        )
    teachers = {name: value for name, value in tensors.items() if name.startswith("teacher.")}
    return {name.removeprefix("teacher."): value for name, value in (teachers or tensors).items()}


def load_file_safely(path: Path) -> Any:
    """What a file holds: tensors, plain values and `PLAIN_TYPES`, nothing else.

    Raises:
        ConfigError: it is damaged, no file of weights, or holds another type; says which.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(PLAIN_TYPES):
            return torch.load(path, "cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise ConfigError(f"{path}: {_reason(path, error)}") from error


def _reason(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is an HTML page, not weights: a login page or an error of the download; fetch the file again"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not weights; fetch the file itself (git lfs pull)"
    if kind := FORBIDDEN.search(str(error)):
        return f"refused, holds a {kind[1]}, and loading one could run code; save its state_dict alone and name that"
    if isinstance(error, pickle.UnpicklingError):
        return f"refused, is damaged or holds more than tensors: {type(error).__name__}"
    return f"not readable as weights: {' '.join(str(error).split())[:200]}"
