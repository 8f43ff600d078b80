"""One process and two, through the entry point, on the CPU (gloo)."""

import json
import shutil
import sys
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from midnight.errors import ConfigError, MidnightError
from midnight.ssl import runtime
from midnight.ssl.checkpoint.pieces import PieceFiles
from midnight.ssl.launch.entry import check_machine, place, process_group, start
from midnight.ssl.launch.job import read_job
from midnight.ssl.launch.processes import _judge
from midnight.ssl.launch.signals import StoppedError
from tests.ssl.launched import (
    assert_close,
    ended,
    error_line,
    job_of,
    launched,
    lines,
    ranks,
    small_index,
    train_launched,
    wait_for_step,
)
from tests.ssl.tiny import tiny_recipe


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_index(tmp_path_factory.mktemp("slides"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, index: Path) -> Path:
    """A whole run of one process."""
    job = job_of(tmp_path_factory.mktemp("alone"), index, 1)
    train_launched(job)
    return job


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, index: Path) -> Path:
    """A whole run of two processes."""
    job = job_of(tmp_path_factory.mktemp("two"), index, 2)
    train_launched(job)
    return job


@pytest.fixture(scope="module")
def fsdp(tmp_path_factory: pytest.TempPathFactory, index: Path) -> Path:
    """A whole run of two processes that share the weights."""
    job = job_of(tmp_path_factory.mktemp("fsdp"), index, 2, training={"sharding": "fsdp"})
    train_launched(job)
    return job


@pytest.mark.parametrize("run", ["two", "fsdp"])
def test_two_processes_have_the_losses_of_one(alone: Path, run: str, request: pytest.FixtureRequest) -> None:
    other = request.getfixturevalue(run)
    assert len(lines(alone)) == 8
    assert lines(alone)[0]["loss"] != lines(alone)[-1]["loss"]
    assert_close(lines(alone), lines(other))
    exported, expected = (load_file(job.parent / "run" / "teacher.safetensors") for job in (other, alone))
    assert exported.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(exported[name], value, atol=1e-4, rtol=1e-3)


def test_moving_centres_and_a_scaled_loss_are_the_same_where_weights_are_shared(tmp_path: Path, index: Path) -> None:
    jobs = []
    for processes, sharding in ((1, "none"), (2, "fsdp")):
        (tmp_path / sharding).mkdir()
        training = {"sharding": sharding, "precision": "float16"}
        change = {"loss": {"centering": "softmax"}, "training": training}
        jobs.append(job_of(tmp_path / sharding, index, processes, **change))
        train_launched(jobs[-1])
    assert_close(lines(jobs[0]), lines(jobs[1]))
    centres = [tensors_of(job)["teacher.centres.dino.centre"] for job in jobs]
    assert centres[0].abs().max() > 0
    torch.testing.assert_close(centres[1], centres[0], atol=1e-5, rtol=1e-4)


def test_each_process_writes_its_part_of_a_checkpoint(alone: Path, two: Path, fsdp: Path) -> None:
    whole = tensors_of(alone)
    for job in (two, fsdp):
        files = sorted((job.parent / "run" / "checkpoints" / "step_00000004").glob("*.safetensors"))
        sizes = [file.stat().st_size for file in files]
        assert len(sizes) == 2
        assert max(sizes) < 0.7 * sum(sizes)
        shared = tensors_of(job)
        assert shared.keys() == whole.keys()
        assert all(shared[name].shape == whole[name].shape for name in whole)


def test_what_is_trained_already_is_not_trained_again(alone: Path, tmp_path: Path) -> None:
    """The rule's outputs are gone, and so are the checkpoints: it used to train from step 0, to other weights."""
    shutil.copytree(alone.parent, tmp_path, dirs_exist_ok=True)
    job, run = tmp_path / alone.name, tmp_path / "run"
    job.write_text(job.read_text().replace(str(alone.parent), str(tmp_path)))
    shutil.rmtree(run / "checkpoints")
    before = (run / "teacher.safetensors").read_bytes()
    for name in ("teacher.safetensors", "model.json"):
        (run / name).unlink()
    start(job)
    assert (run / "teacher.safetensors").read_bytes() == before
    assert not (run / "checkpoints").exists()


def tensors_of(job: Path) -> PieceFiles:
    return PieceFiles(sorted((job.parent / "run" / "checkpoints" / "step_00000004").glob("*.safetensors")))


@pytest.mark.parametrize(
    ("run", "processes", "sharding"),
    [("two", 1, "none"), ("alone", 2, "none"), ("fsdp", 1, "none"), ("two", 2, "fsdp")],
)
def test_a_run_goes_on_with_other_processes(
    run: str, processes: int, sharding: str, tmp_path: Path, index: Path, request: pytest.FixtureRequest
) -> None:
    """From the middle of a run, on another number of processes or sharded otherwise: the losses are the same."""
    source = request.getfixturevalue(run)
    job = job_of(tmp_path, index, processes, training={"sharding": sharding})
    shutil.copytree(source.parent / "run", tmp_path / "run", ignore=shutil.ignore_patterns("finished.*"))
    for step in (6, 8):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step_{step:08d}")
    status, errors = ended(launched(job))
    assert status == 0, errors
    assert "resumed from step 4" in errors
    assert_close(lines(job), lines(source))
    assert lines(job)[:4] == lines(source)[:4]


def test_all_fall_back_when_one_part_is_damaged(tmp_path: Path, index: Path, two: Path) -> None:
    job = job_of(tmp_path, index, 2)
    shutil.copytree(two.parent / "run", tmp_path / "run", ignore=shutil.ignore_patterns("finished.*"))
    part = tmp_path / "run" / "checkpoints" / "step_00000008" / "shard-00001.safetensors"
    part.write_bytes(part.read_bytes()[:-10])
    status, errors = ended(launched(job))
    assert status == 0, errors
    assert "step_00000008 is damaged" in errors
    assert "resumed from step 6" in errors
    assert lines(job) == lines(two)


def test_a_full_disk_under_one_process_is_one_line(tmp_path: Path, index: Path) -> None:
    job = job_of(tmp_path, index, 2, training={"iterations": 40, "checkpoint_every": 10})
    process = launched(job)
    wait_for_step(job, 2, process)
    ranks(process)[1].rlimit(psutil.RLIMIT_FSIZE, (1000, 1000))
    status, errors = ended(process)
    assert status == 1
    assert "step_00000010: checkpoint can't be written: " in error_line(errors)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == []


def test_torchrun_may_start_them_too(two: Path, tmp_path: Path, index: Path) -> None:
    job = job_of(tmp_path, index, 2)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    status, errors = ended(launched(job, [*torchrun, "--nproc-per-node", "2", "-m", "midnight.ssl.launch", str(job)]))
    assert status == 0, errors
    assert lines(job) == lines(two)


def test_an_error_of_one_process_ends_all_with_its_line(tmp_path: Path, index: Path) -> None:
    job = job_of(tmp_path, index, 2)
    content = json.loads(job.read_text())
    content["cohorts"]["c"][0] = str(tmp_path / "nowhere.parquet")
    job.write_text(json.dumps(content))
    status, errors = ended(launched(job))
    assert status == 1
    assert "nowhere.parquet: can't be read: No such file or directory" in error_line(errors)


def test_where_a_process_stands() -> None:
    assert place({}) == {}
    assert place({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0"}) == {}
    slurm = {"SLURM_PROCID": "9", "SLURM_NTASKS": "16", "SLURM_LOCALID": "1", "MASTER_ADDR": "n1"}
    expected = {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "MASTER_PORT": "29400"}
    assert place(slurm) == expected
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "5"}
    assert place(slurm | torchrun) == {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    with pytest.raises(ConfigError, match="WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set"):
        place({"RANK": "0"})


def test_a_machine_that_is_too_small_says_so() -> None:
    check_machine(tiny_recipe(training={"gpus": 2}))
    with pytest.raises(ConfigError, match=r"training\.gpus is 5000, but this machine has"):
        check_machine(tiny_recipe(training={"gpus": 5000}))


def test_a_job_comes_back_as_it_was(alone: Path, tmp_path: Path) -> None:
    job = read_job(alone)
    assert (job.recipe.training.batch_size, job.recipe.tiles.mpps, job.data) == (4, (0.5,), "demo")
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(MidnightError, match=r"job\.json: no training job: KeyError: 'recipe'"):
        read_job(tmp_path / "job.json")


def test_what_statuses_mean() -> None:
    _judge([0, 0], [])
    with pytest.raises(StoppedError, match="stopped by SIGTERM"):
        _judge([75, 75], ["stopped by SIGTERM", "stopped by another"])
    with pytest.raises(StoppedError):
        _judge([-15, -15], [])
    with pytest.raises(StoppedError, match="stopped by SIGTERM"):  # the other was late, and ended by the launcher
        _judge([None, 75], ["stopped by SIGTERM"])
    with pytest.raises(MidnightError, match="the disk hangs") as caught:
        _judge([75, 1], ["the disk hangs"])
    assert not isinstance(caught.value, StoppedError)
    with pytest.raises(MidnightError, match="process 1 of 2 was killed by SIGKILL"):
        _judge([1, -9], ["RuntimeError: connection closed by peer"])
    with pytest.raises(MidnightError, match=r"^disk full$"):
        _judge([None, 1], ["disk full", "RuntimeError: connection closed by peer"])
    with pytest.raises(MidnightError, match=r"ended with status \[0, 3\]"):
        _judge([0, 3], [])


def test_an_error_on_a_gpu_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nccl's own leaving waits for what the others have begun: up to half an hour, if one has failed."""
    done: list[str] = []
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: done.append("met"))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: done.append("left"))
    monkeypatch.setattr(dist.distributed_c10d, "_abort_process_group", lambda: done.append("aborted"))
    monkeypatch.setattr(runtime, "pick_device", lambda: torch.device("cpu"))
    place_of_one = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name in place_of_one:
        monkeypatch.setenv(name, place_of_one[name])
    for gpu, ending in ((True, "aborted"), (False, "left")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        with pytest.raises(ValueError, match="broken"), process_group(place_of_one):
            raise ValueError("broken")
        assert done == ["met", ending]
        done.clear()
    with process_group(place_of_one):
        pass
    assert done == ["met", "left"]
