"""The probe within a run: it shows in metrics.jsonl and changes nothing."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from midnight.ssl.monitor.label_free import MEASURES
from midnight.ssl.monitor.probe import FILE
from midnight.ssl.monitor.samples import FILE as CROPS
from tests.ssl.probe_slides import probe_recipe, write_cohort
from tests.ssl.tiny import batch_at, train_tiny

PROBED = {*MEASURES, *(f"{name}_random_init" for name in MEASURES)}
TIMES = ("images_per_s", "seconds")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("slides"), {"a": False, "b": True, "c": False})


def lines(output: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in found]


def run(output: Path, index: Path, batches: Any = None, **training: Any) -> list[dict[str, Any]]:
    train_tiny(output, probe_recipe(**training), batches=batches, cohorts={"c": (index, 1.0)})
    return lines(output)


def test_probes_change_no_loss_and_no_weight(index: Path, tmp_path: Path) -> None:
    """Tiles are drawn from slides, so training's draws would be seen to change as well."""
    with_probes = run(tmp_path / "with", index, probe_every=3)
    without = run(tmp_path / "without", index, probe_every=0)
    assert [line["step"] for line in with_probes] == list(range(9))
    assert {line["step"] for line in with_probes if "agreement" in line} == {0, 3, 6, 8}
    bare = [{name: value for name, value in line.items() if name not in PROBED} for line in with_probes[1:]]
    assert bare == without
    one, other = (load_file(tmp_path / name / "teacher.safetensors") for name in ("with", "without"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert [(tmp_path / name / FILE).exists() for name in ("with", "without")] == [True, False]


def test_step_0_is_the_reference(index: Path, tmp_path: Path) -> None:
    first, *rest = run(tmp_path / "run", index)
    assert first["step"] == 0 and first["agreement"] == first["agreement_random_init"]
    assert not any("agreement_random_init" in line for line in rest)
    assert all(0 < line["rank"] <= 4 for line in rest)
    assert (tmp_path / "run" / CROPS).read_bytes().startswith(b"\x89PNG")


def test_probes_come_between_logged_steps_too(index: Path, tmp_path: Path) -> None:
    found = run(tmp_path / "run", index, log_every=4, probe_every=3)
    assert [(line["step"], "agreement" in line) for line in found] == [
        (0, True), (1, False), (3, True), (4, False), (6, True), (8, True)
    ]  # fmt: skip


class StopError(Exception):
    """Stands for a kill between two batches."""


@pytest.mark.parametrize("last", [1, 5, 7])
def test_a_resumed_run_has_the_same_probes_once(index: Path, tmp_path: Path, last: int) -> None:
    def whole(start: int) -> Iterator[dict[str, Tensor]]:
        return (batch_at(step) for step in itertools.count(start))

    def stopping(start: int) -> Iterator[dict[str, Tensor]]:
        for step in itertools.count(start):
            if step == last:
                raise StopError
            yield batch_at(step)

    expected = run(tmp_path / "whole", index, whole, probe_every=2)
    with pytest.raises(StopError):
        run(tmp_path / "run", index, stopping, probe_every=2)
    assert run(tmp_path / "run", index, whole, probe_every=2) == expected
