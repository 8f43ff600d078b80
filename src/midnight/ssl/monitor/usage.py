"""How busy the machine is, under the names that MLflow's own system metrics have.

MLflow's monitor is not used: it has a thread of its own that waits for a dead server, and without pynvml no GPU.
"""

from typing import Any

import psutil
import torch

MB = 1e6


def system_usage() -> dict[str, float]:
    """Load of this machine since the last call and memory in use; of this process's GPU too, if it uses one."""
    memory = psutil.virtual_memory()
    usage = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / MB,
        "system_memory_usage_percentage": memory.percent,
        "process_memory_megabytes": psutil.Process().memory_info().rss / MB,
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        usage |= _gpu_usage(torch.cuda)
    return {f"system/{name}": float(value) for name, value in usage.items()}


def _gpu_usage(cuda: Any) -> dict[str, float]:
    free, total = cuda.mem_get_info()
    usage = {
        "gpu_0_memory_usage_megabytes": (total - free) / MB,
        "gpu_0_memory_usage_percentage": 100 * (total - free) / total,
        "gpu_0_memory_allocated_peak_megabytes": cuda.max_memory_allocated() / MB,
    }
    try:
        watts = cuda.power_draw() / 1000
        return usage | {"gpu_0_utilization_percentage": cuda.utilization(), "gpu_0_power_usage_watts": watts}
    except (ImportError, RuntimeError):  # no pynvml, or a driver that does not tell
        return usage
