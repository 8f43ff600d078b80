"""The entry point of training, whoever starts it: one process, or a share of many.

    python -m midnight.ssl.launch JOB.json              on this machine: training.gpus processes (gloo on a CPU)
    torchrun --nproc-per-node 8 -m midnight.ssl.launch JOB.json                 this process is one of torchrun's
    srun --kill-on-bad-exit=1 python -m midnight.ssl.launch JOB.json            one of Slurm's; MASTER_ADDR exported

The status is 0 at the end, 75 (EX_TEMPFAIL) after Ctrl-C, SIGTERM or SIGUSR1 with all saved: run it again; 1 after an
error, with one line on standard error.

torch is imported by the functions that use it: signals have to be answered from the first moment on.
"""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from midnight.config import Recipe
from midnight.errors import ConfigError, MidnightError
from midnight.logs import setup
from midnight.ssl.launch.job import Job, read_job
from midnight.ssl.launch.processes import end_with_launcher, launched, run_processes, tell
from midnight.ssl.launch.signals import StoppedByOtherError, stop_on_signals

log = logging.getLogger(__name__)
NAMES = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}
"""What torchrun sets, and Slurm's names for it."""
PORT = "29400"
TIMEOUT = timedelta(minutes=30)
"""After which a process gives up waiting for others; whoever started them ends them sooner where one has failed."""


def place(environment: Mapping[str, str]) -> dict[str, str]:
    """RANK, WORLD_SIZE, LOCAL_RANK and the meeting point, from torchrun's or Slurm's environment; empty if alone.

    A Slurm job without MASTER_ADDR counts as a lone process: also a script within an allocation sees SLURM_PROCID.

    Raises:
        ConfigError: torchrun's variables are not complete.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in environment]
        if missing:
            raise ConfigError(f"environment: {', '.join(missing)} not set; start training by torchrun, or unset RANK")
        return {"LOCAL_RANK": environment["RANK"]} | {n: environment[n] for n in NAMES if n in environment}
    if "MASTER_ADDR" in environment and all(name in environment for name in NAMES.values()):
        return {ours: environment[theirs] for ours, theirs in NAMES.items()} | {
            "MASTER_PORT": environment.get("MASTER_PORT", PORT)
        }
    return {}


@contextlib.contextmanager
def process_group(environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Meet the other processes, with nccl where there are GPUs, else gloo; part from them at the end, also of an error.

    Does nothing in a lone process.
    """
    found = place(os.environ if environment is None else environment)
    if not found:
        yield
        return
    import torch
    import torch.distributed as dist

    from midnight.ssl import runtime

    os.environ.update(found)
    gpu = torch.cuda.is_available()
    try:
        dist.init_process_group(
            "nccl" if gpu else "gloo", timeout=TIMEOUT, device_id=runtime.pick_device() if gpu else None
        )
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise MidnightError(f"the processes do not meet at {where}: {' '.join(str(error).split())[:300]}") from error
    try:
        yield
    except BaseException:
        _leave(gpu)
        raise
    dist.destroy_process_group()


def _leave(gpu: bool) -> None:
    """Part from the others after an error, which may wait for this process in nccl, as this one for them: at once."""
    import torch.distributed as dist

    if gpu:
        dist.distributed_c10d._abort_process_group()
    else:
        dist.destroy_process_group()


def start(path: Path) -> None:
    """Train a job to its end: as one process of many where somebody has started them, else with all it asks for.

    Raises:
        MidnightError: see `midnight.ssl.train.train`; or this machine has too few GPUs or cores.
    """
    job = read_job(path)
    with stop_on_signals(speaks=_speaks(os.environ)) as stop:
        if not place(os.environ) and trained_already(job):
            return
        if place(os.environ) or job.recipe.training.gpus == 1:
            end_with_launcher()
            import midnight.ssl.train  # noqa: F401  (takes seconds, in which one may be told to stop)

            stop.check(str(job.output))
            with process_group():
                _run_or_tell(job)
        else:
            check_machine(job.recipe)
            run_processes(path, job.recipe.training.gpus, stop)


def trained_already(job: Job) -> bool:
    """Put the finished model of this very configuration back, where it is kept; whether it was.

    Raises:
        MidnightError: an input of the run can't be read.
    """
    if not any(job.output.glob("finished.*")):
        return False
    from midnight.config.load import read_yaml
    from midnight.ssl.checkpoint.finished import put_back
    from midnight.ssl.checkpoint.identity import run_config
    from midnight.ssl.checkpoint.run_key import run_key

    path = job.output / "config.yaml"
    key = run_key(run_config(job.output, job.recipe, job.cohorts, job.init_from, job.data))
    present = read_yaml(path).get("hash", "unknown") if path.is_file() else "unknown"
    return put_back(job.output, key, job.recipe.training.iterations, str(present))


def _speaks(environment: Mapping[str, str]) -> bool:
    """Whether this process tells the person that it was told to stop: one of those that do the same is enough."""
    return not launched() and environment.get("RANK", environment.get("SLURM_PROCID", "0")) == "0"


def check_machine(recipe: Recipe) -> None:
    """Check that this machine has a GPU for each process or, without any, a core (two processes always may).

    Raises:
        ConfigError: it hasn't.
    """
    import torch

    asked, gpus = recipe.training.gpus, torch.cuda.device_count()
    room, what = (gpus, "GPUs") if gpus else (max(2, len(os.sched_getaffinity(0))), "CPU cores and no GPU")
    if asked > room:
        raise ConfigError(
            f"recipe {recipe.name}: training.gpus is {asked}, but this machine has {room} {what}; start it on more "
            f"machines by torchrun or srun, or override training.gpus and batch_size (their product is the batch)"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line says; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m midnight.ssl.launch", description="Train one run.")
    parser.add_argument("job", type=Path, help="file written by the workflow: models/RUN/job.json")
    arguments = parser.parse_args(argv)
    with stop_on_signals(speaks=_speaks(os.environ)):
        setup()
        try:
            start(arguments.job)
        except MidnightError as error:
            print(f"midnight: error: {error}", file=sys.stderr)
            return error.status
    return 0


def _run_or_tell(job: Job) -> None:
    """Run; tell of an error before the others notice that this process is gone, so that it is known as the cause."""
    from midnight.ssl.train import train

    try:
        train(job)
    except StoppedByOtherError:
        raise  # the other tells why
    except MidnightError as error:
        tell(str(error))
        raise
    except Exception as error:
        log.exception("training failed")
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        tell(text)
        raise MidnightError(f"{text} (traceback above)") from error


if __name__ == "__main__":
    sys.exit(main())
