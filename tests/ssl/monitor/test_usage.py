from types import SimpleNamespace

import pytest

from midnight.ssl.monitor.usage import _gpu_usage, system_usage


def test_the_machines_load_is_in_mlflows_names() -> None:
    usage = system_usage()
    assert set(usage) >= {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"}
    assert usage["system/process_memory_megabytes"] < usage["system/system_memory_usage_megabytes"] * 2
    assert 0 < usage["system/system_memory_usage_percentage"] <= 100


@pytest.mark.parametrize("known", [True, False])
def test_a_gpu_tells_its_memory_and_where_it_can_its_load(known: bool) -> None:
    def utilization() -> int:
        if not known:
            raise ModuleNotFoundError("pynvml does not seem to be installed")
        return 87

    cuda = SimpleNamespace(
        mem_get_info=lambda: (20e9, 80e9),
        max_memory_allocated=lambda: 50e9,
        power_draw=lambda: 650_000,
        utilization=utilization,
    )
    usage = _gpu_usage(cuda)
    assert (usage["gpu_0_memory_usage_megabytes"], usage["gpu_0_memory_usage_percentage"]) == (60_000, 75)
    assert usage.get("gpu_0_utilization_percentage") == (87 if known else None)
    assert usage.get("gpu_0_power_usage_watts") == (650 if known else None)
