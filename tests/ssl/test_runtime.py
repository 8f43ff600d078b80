import os

import pytest
import torch

from midnight.errors import ConfigError
from midnight.ssl import runtime
from tests.ssl.tiny import tiny_recipe


def test_threads_are_this_processs_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert [runtime.cpu_threads(workers) for workers in (0, 3, 20)] == [8, 5, 1]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert [runtime.cpu_threads(workers) for workers in (0, 3)] == [4, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert runtime.cpu_threads(0) == 2


@pytest.mark.parametrize(("rank", "gpus", "expected"), [("1", 4, 1), ("3", 1, 0)])
def test_a_process_finds_its_gpu(monkeypatch: pytest.MonkeyPatch, rank: str, gpus: int, expected: int) -> None:
    """All of the machine's are seen, or only the process's own."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert runtime.pick_device() == torch.device("cuda", expected)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="process 3 of this machine has no GPU, of 2"):
        runtime.pick_device()


def test_the_recipe_says_how_many_processes() -> None:
    runtime.check_processes(tiny_recipe().training, "tiny")
    with pytest.raises(ConfigError, match=r"training\.gpus is 2, but 1 process"):
        runtime.check_processes(tiny_recipe(training={"gpus": 2}).training, "tiny")


@pytest.mark.parametrize(
    ("capability", "precision", "warned"),
    [((7, 0), "bfloat16", True), ((7, 0), "float16", False), ((8, 0), "bfloat16", False)],
)
def test_a_gpu_without_bfloat16_is_named(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capability: tuple[int, int],
    precision: str,
    warned: bool,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    training = tiny_recipe(training={"precision": precision}).training
    runtime.check_precision(torch.device("cuda"), training)
    runtime.check_precision(torch.device("cpu"), training)
    assert ("Tesla V100 has no bfloat16 of its own" in caplog.text) is warned
    assert ("training.precision: float16" in caplog.text) is warned


def test_each_precision_has_its_type_on_a_gpu() -> None:
    types = {
        name: runtime.autocast(torch.device("cuda"), tiny_recipe(training={"precision": name}).training).fast_dtype
        for name in ("bfloat16", "float16", "float8")
    }
    assert types == {"bfloat16": torch.bfloat16, "float16": torch.float16, "float8": torch.bfloat16}
