"""What the system knows of a path and of a process, asked without ever waiting for the disk or server in question."""

from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
STATES = {"D": "waiting for a disk or server", "R": "running", "T": "stopped", "Z": "ended"}


def mount_of(path: str, mounts: Path = MOUNTS) -> str:
    """The mount that a path lies on, as text to append to it; empty where it isn't known. Links are not followed."""
    try:
        lines = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return ""
    whole = str(Path(path).absolute())
    found = [(_plain(line[1]), line[2], _plain(line[0])) for line in lines if len(line) > 2]
    over = [mount for mount in found if whole == mount[0] or whole.startswith(mount[0].rstrip("/") + "/")]
    if not over:
        return ""
    folder, kind, device = max(over, key=lambda mount: len(mount[0]))
    return f" (mount {folder}, {kind} of {device})"


def _plain(text: str) -> str:
    """As the system writes it, with spaces and the like as octal numbers."""
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def state_of(process: int | None) -> str:
    """What a process of this machine is doing, in words."""
    try:
        state = (
            Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        )
    except (OSError, IndexError):
        return "of unknown state"
    return STATES.get(state, "waiting")
