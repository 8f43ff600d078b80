"""Training runs as users start them: real processes, real slides, real signals."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from midnight.config import merge
from midnight.ssl.launch.job import Job, write_job
from tests.ssl.tiny import OFF, tiny_recipe
from tests.tissue.small_slides import make_index, tissue_image, write_slide
from tests.waiting import comes_true

# What differs by the number of processes (masks, stochastic depth, both drawn per process) is off.
ALIKE: dict[str, Any] = {
    "tiles": {"size": 32, "mpps": [0.5]},
    "backbone": {"drop_path": 0.0},
    "loss": {"mask_probability": 0.0},
    "optimizer": {"base_lr": 1e-2},
}
TIMES = ("images_per_s", "seconds")


def small_index(folder: Path) -> Path:
    image = tissue_image(640, 640, [(40, 40, 500, 500)])
    return make_index(folder, [write_slide(folder / "slide.svs", image, 0.5)])


def job_of(folder: Path, index: Path, processes: int, **change: Any) -> Path:
    """A job with 4 tiles per micro-step, whatever the processes."""
    values = merge(ALIKE, {"training": {"gpus": processes, "batch_size": 4 // processes}})
    recipe = tiny_recipe(**merge(values, change))
    job = Job(recipe, {"c": (index, 1.0)}, folder / "run", None, OFF, folder, "demo")
    write_job(folder / "job.json", job)
    return folder / "job.json"


def command(job: Path) -> list[str]:
    return [sys.executable, "-m", "midnight.ssl.launch", str(job)]


def launched(job: Path | None, arguments: list[str] | None = None) -> "subprocess.Popen[str]":
    """A process with a process group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        arguments or command(job or Path()),
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def answers(process: "subprocess.Popen[str]", number: int = signal.SIGUSR1) -> bool:
    """Whether a process handles this signal by now."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
        return bool(caught >> (number - 1) & 1)
    return False


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Status and standard error of a process that is given 400 s."""
    _, errors = process.communicate(timeout=400)
    return process.returncode, errors


def train_launched(job: Path) -> None:
    status, errors = ended(launched(job))
    assert status == 0, errors


def lines(job: Path) -> list[dict[str, Any]]:
    text = (job.parent / "run" / "metrics.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


def wait_for_step(job: Path, step: int, process: "subprocess.Popen[str]") -> None:
    """Until that many micro-steps are logged."""
    path = job.parent / "run" / "metrics.jsonl"
    logged = comes_true(lambda: path.exists() and len(path.read_text().splitlines()) >= step, process, seconds=400)
    assert logged, process.communicate()[1] if process.poll() is not None else path


def ranks(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The processes that train, by rank."""
    children = [child for child in psutil.Process(process.pid).children() if "RANK" in child.environ()]
    return sorted(children, key=lambda child: int(child.environ()["RANK"]))


def error_line(errors: str) -> str:
    """The one line for the person."""
    found = [line for line in errors.splitlines() if line.startswith("midnight: error: ")]
    return found[-1]


def assert_equal(one: Path, other: Path) -> None:
    """Bit for bit."""
    assert lines(one) == lines(other)
    first, second = (load_file(job.parent / "run" / "teacher.safetensors") for job in (one, other))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def assert_close(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    """To float tolerance: losses within 1e-4 at each micro-step, gradient norms within 1 % at each optimizer step."""
    assert [record["step"] for record in one] == [record["step"] for record in other]
    for name, tolerance in (("loss", 1e-4), ("dino", 1e-4), ("regularizer", 1e-4), ("grad_norm", 1e-2)):
        pairs = [(a[name], b[name]) for a, b in zip(one, other, strict=True) if a[name] is not None]
        assert len(pairs) == sum(record[name] is not None for record in other) > 0
        assert all(a == pytest.approx(b, rel=tolerance) for a, b in pairs), (name, pairs)
