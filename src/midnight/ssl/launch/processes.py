"""Several processes of one training run on this machine: started together, ended together.

Not torchrun, though `midnight.ssl.launch` runs under it too: torchrun makes every exit status 1, so nobody could tell
"saved, run again" from an error; it dies of SIGUSR1; and it gives its processes 30 s to save.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from midnight.children import signals_held
from midnight.errors import MidnightError
from midnight.ssl.launch.signals import SIGNALS, StoppedError, StopRequest

log = logging.getLogger(__name__)
ERRORS = "MIDNIGHT_ERRORS"
"""Environment variable: the file in which processes tell why they end."""
GRACE = 5.0
"""Seconds in which the other processes may end by themselves after one has."""
POLL = 0.1
STOPPED = (StoppedError.status, *(-number for number in SIGNALS))
"""Statuses after a request to stop; a signal's own where it came before training began or after it ended."""
Process = subprocess.Popen[bytes]


def launched() -> bool:
    """Whether `run_processes` started this process."""
    return ERRORS in os.environ


def tell(line: str) -> None:
    """Tell whoever started this process why it ends; the first line of all processes is the cause."""
    if path := os.environ.get(ERRORS):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{' '.join(line.split())}\n".encode())
        os.close(handle)


def end_with_launcher() -> None:
    """Let this process be killed when the one that started it is gone, so that no half of a run is left behind.

    The launcher holds the other end of standard input, which the system closes however the launcher ends.
    """

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    if launched():
        threading.Thread(target=watch, name="launcher", daemon=True).start()


def run_processes(job: Path, count: int, stop: StopRequest) -> None:
    """Run `count` processes of the job on this machine and wait for them; signals to stop are passed on to them.

    At the third Ctrl-C they are killed.

    They meet at a port of the loopback interface, which this process holds.

    Raises:
        MidnightError: one of them failed, which has ended them all: the line of the first that did.
        StoppedError: they were told to stop, and all is saved.
    """
    from torch.distributed import TCPStore

    stop.check(str(job))
    store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    with tempfile.TemporaryDirectory(prefix="midnight-") as folder:
        errors = Path(folder) / "errors"
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
        with _started(job, count, meeting | {ERRORS: str(errors)}) as processes, _passed_on(processes, stop):
            codes = _wait(processes)
        told = errors.read_text(encoding="utf-8").splitlines() if errors.exists() else []
    _judge(codes, told)


@contextlib.contextmanager
def _started(job: Path, count: int, variables: dict[str, str]) -> Iterator[list[Process]]:
    """The processes; those that still run at the end of the block are killed, for checkpoints are safe against it."""
    common = os.environ | variables | {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    if sys.platform == "linux":
        common.setdefault("GLOO_SOCKET_IFNAME", "lo")
    processes: list[Process] = []
    try:
        for rank in range(count):
            variables = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, "-m", "midnight.ssl.launch", str(job)]
            with signals_held():  # until `stop_on_signals` there
                processes.append(subprocess.Popen(command, env=variables, stdin=subprocess.PIPE))
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


@contextlib.contextmanager
def _passed_on(processes: Sequence[Process], stop: StopRequest) -> Iterator[None]:
    """Within the block the signals that ask for a stop go to the processes, also one that came before."""
    give_up = stop.give_up

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            process.send_signal(number)
        stop.note(number)

    def kill() -> None:
        for process in processes:
            process.kill()
        give_up()

    stop.give_up = kill
    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    if stop.received is not None:
        for process in processes:
            process.send_signal(stop.received)
    try:
        yield
    finally:
        stop.give_up = give_up
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: Sequence[Process]) -> list[int | None]:
    """Statuses when all have ended, or `GRACE` after one has failed; None for one that then still runs."""
    deadline = None
    while True:
        codes = [process.poll() for process in processes]
        if None not in codes or (deadline is not None and time.monotonic() > deadline):
            return codes
        if deadline is None and any(codes):
            deadline = time.monotonic() + GRACE
        time.sleep(POLL)


def _judge(codes: Sequence[int | None], told: Sequence[str]) -> None:
    """Raise what the processes' statuses and lines mean.

    A kill comes first: what the others then tell of lost connections is its consequence.
    """
    killed = {rank: signal.Signals(-code).name for rank, code in enumerate(codes) if code is not None and code < 0}
    if all(code == 0 for code in codes):
        return
    ended = [code for code in codes if code is not None]  # the others, late after a stop, were ended by this process
    if all(code in STOPPED for code in ended):
        raise StoppedError(told[0] if told else "stopped; run again to go on")
    if killed:
        rank, name = next(iter(killed.items()))
        raise MidnightError(
            f"training process {rank} of {len(codes)} was killed by {name} (mostly memory: lower training.workers or "
            f"batch_size); the others were ended; run again to go on from the last checkpoint"
        )
    raise MidnightError(told[0] if told else f"training processes ended with status {list(codes)}; see the log")
