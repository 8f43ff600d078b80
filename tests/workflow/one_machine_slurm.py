"""A real Slurm on one machine for tests: a controller and two node daemons, no accounting, no systemd, no cgroups.

Needs root, Debian's slurm-wlm and munge, and no Slurm configuration of the machine's own. The configuration must lie at
Slurm's default path, because the job-step executor strips SLURM_CONF from the environment of its srun.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CONFIG = Path("/etc/slurm/slurm.conf")
GRES = CONFIG.with_name("gres.conf")
NODES = {"cpu1": 17101, "gpu1": 17102}
TEMPLATE = """\
ClusterName=midnighttest
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort=17100
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
MinJobAge=300
NodeName=cpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port=17101 CPUs=16 RealMemory=64000
NodeName=gpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port=17102 CPUs=16 RealMemory=64000 Gres=gpu:8
PartitionName=cpu Nodes=cpu1 Default=YES MaxTime=1-00:00:00 DefMemPerCPU=100 State=UP
PartitionName=gpu Nodes=gpu1 MaxTime=1-00:00:00 DefMemPerCPU=100 State=UP
PartitionName=urgent Nodes=gpu1 MaxTime=1-00:00:00 DefMemPerCPU=100 PriorityTier=10 State=UP
"""


def missing() -> str | None:
    """Why no test Slurm can be started here, or None."""
    absent = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)}: install slurm-wlm and munge"
    if os.geteuid() != 0:
        return "a test Slurm needs root"
    return f"this machine has its own {CONFIG}" if CONFIG.exists() or CONFIG.is_symlink() else None


@contextlib.contextmanager
def running_slurm(folder: Path) -> Iterator[None]:
    """Start munge if needed, the controller and the nodes; stop what was started and remove the configuration."""
    started_munge = _start_munge()
    try:
        _configure(folder)
        subprocess.run(["slurmctld"], check=True)
        for node in NODES:
            (folder / f"spool-{node}").mkdir()
            subprocess.run(["slurmd", "-N", node], check=True)
        _wait(lambda: _idle_nodes() == len(NODES), "the nodes of the test Slurm did not become idle")
        yield
    finally:
        for pid_file in [*folder.glob("slurmd-*.pid"), folder / "slurmctld.pid"]:
            _stop(pid_file)
        CONFIG.unlink(missing_ok=True)
        GRES.unlink(missing_ok=True)
        if started_munge:
            _stop(Path("/run/munge/munged.pid"))


def _configure(folder: Path) -> None:
    (folder / "state").mkdir(parents=True)
    gpus = []
    for number in range(8):
        device = folder / f"gpu{number}"
        device.touch()
        gpus.append(str(device))
    CONFIG.parent.mkdir(exist_ok=True)
    CONFIG.write_text(TEMPLATE.format(host=socket.gethostname().split(".")[0], folder=folder))
    GRES.write_text(f"AutoDetect=off\nNodeName=gpu1 Name=gpu File={folder}/gpu[0-7]\n")


def _munge_works() -> bool:
    return subprocess.run(["munge", "-n"], capture_output=True).returncode == 0


def _start_munge() -> bool:
    if _munge_works():
        return False
    key = Path("/etc/munge/munge.key")
    for folder in (Path("/run/munge"), Path("/var/log/munge"), Path("/var/lib/munge"), key.parent):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.chown(folder, "munge", "munge")
    if not key.exists() or not key.stat().st_size:
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        shutil.chown(key, "munge", "munge")
    command = ["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", shutil.which("munged") or "munged"]
    subprocess.run(command, check=True)
    _wait(_munge_works, "munge did not start")
    return True


def _idle_nodes() -> int:
    """A node of two partitions has two lines."""
    result = subprocess.run(["sinfo", "-h", "-N", "-o", "%N %T"], capture_output=True, text=True)
    return sum(line.endswith(" idle") for line in set(result.stdout.splitlines()))


def _wait(ready: Callable[[], bool], message: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(message)
        time.sleep(0.2)


def _stop(pid_file: Path) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
        _wait(lambda: not pid_file.exists(), f"{pid_file.name}: the daemon did not stop", 15)
