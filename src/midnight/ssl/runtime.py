"""The machine a run is on: device, threads, determinism, precision."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import torch

from midnight.config import Training, choose
from midnight.errors import ConfigError
from midnight.ssl import distributed

log = logging.getLogger(__name__)
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float8": torch.bfloat16,  # of what is not computed in float8
}
"""Of autocast, by precision."""


def pick_device() -> torch.device:
    """This process's GPU (by LOCAL_RANK where a launcher sets it), or the CPU.

    A launcher may show each process all GPUs of the machine, or only its own.

    Raises:
        ConfigError: more processes than GPUs were started on this machine.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    rank, gpus = _number("LOCAL_RANK", torch.cuda.current_device()), torch.cuda.device_count()
    if rank >= gpus > 1:
        raise ConfigError(f"process {rank + 1} of this machine has no GPU, of {gpus}: override training.gpus")
    return torch.device("cuda", rank if rank < gpus else 0)


def cpu_threads(workers: int) -> int:
    """This process's share of the usable cores, less its workers; from 1 to OMP_NUM_THREADS where that is set."""
    cores = len(os.sched_getaffinity(0)) // max(1, _number("LOCAL_WORLD_SIZE", 1))
    return max(1, min(cores - workers, _number("OMP_NUM_THREADS", cores)))


def _number(variable: str, default: int) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdigit() else default


@contextlib.contextmanager
def prepared(device: torch.device, workers: int) -> Iterator[None]:
    """On the CPU: deterministic algorithms, and a thread on each usable core that the loader's workers leave free.

    More threads than cores are far slower than fewer, since OpenMP's threads spin while they wait for each other.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    deterministic: Any = torch.utils.deterministic
    filled, threads = deterministic.fill_uninitialized_memory, torch.get_num_threads()
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        deterministic.fill_uninitialized_memory = False  # only for finding bugs, and slow
        torch.set_num_threads(cpu_threads(workers))
    else:
        torch.cuda.set_device(device)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        deterministic.fill_uninitialized_memory = filled
        torch.set_num_threads(threads)


def autocast(device: torch.device, training: Training) -> torch.autocast:
    """The recipe's precision, if the device is a GPU; on the CPU, and for float32, a context that does nothing."""
    dtype = choose(training.precision, DTYPES, "training.precision")
    lowered = dtype != torch.float32 and device.type == "cuda"
    return torch.autocast(device.type, dtype=dtype if lowered else torch.bfloat16, enabled=lowered)


def check_precision(device: torch.device, training: Training) -> None:
    """Warn of a GPU that computes in bfloat16 only by detours: older than Ampere."""
    if device.type != "cuda" or choose(training.precision, DTYPES, "training.precision") != torch.bfloat16:
        return
    if torch.cuda.get_device_capability(device)[0] < 8:
        name = torch.cuda.get_device_name(device)
        log.warning("%s has no bfloat16 of its own, which is slow: override training.precision: float16", name)


def check_processes(training: Training, recipe: str) -> None:
    """Check that as many processes run as the recipe's batch and learning rate assume.

    Raises:
        ConfigError: they differ; says what to override.
    """
    if training.gpus != distributed.world():
        raise ConfigError(
            f"recipe {recipe}: training.gpus is {training.gpus}, but {distributed.world()} process(es) were started; "
            f"override training.gpus (and batch_size or accumulation, to keep the effective batch)"
        )


def seed_step(seed: int, step: int) -> None:
    """Seed torch for one micro-step, per rank: its randomness (stochastic depth) is a function of seed, rank and step.

    So a resumed run needs no generator states, on whatever number of processes.
    """
    torch.manual_seed(hash((seed, distributed.rank(), step)) % 2**63)
