"""Memory and file handles of processes, and a child process to measure something in."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

MB = 1e6


def memory_of(pid: int | None = None) -> dict[str, float]:
    """RSS, PSS (shared pages divided among their users) and USS (own pages) of a process, MB; PSS only on Linux."""
    full = psutil.Process(pid).memory_full_info()
    return {name: round(getattr(full, name, 0) / MB, 1) for name in ("rss", "pss", "uss")}


def handles_of(pid: int, folder: Path) -> tuple[int, int]:
    """Open file handles of a process: all of them, and those on files below `folder` (mapped ones included).

    Where the system does not tell what they point to, only their count.
    """
    root = Path(f"/proc/{pid}")
    if not root.is_dir():
        return psutil.Process(pid).num_fds(), 0
    targets = []
    for entry in (root / "fd").iterdir():
        try:
            targets.append(str(entry.readlink()))
        except OSError:
            targets.append("")
    inside = f"{folder.resolve()}{os.sep}"
    mapped = {line.split(maxsplit=5)[-1].strip() for line in (root / "maps").read_text().splitlines() if inside in line}
    return len(targets), sum(inside in target for target in targets) + len(mapped)


def reset_peak() -> None:
    """Let the peak resident size of this process start anew (Linux; without effect elsewhere)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_rss() -> float:
    """Largest resident size of this process since it started or `reset_peak`, MB."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return round(int(lines["VmHWM"].split()[0]) * 1024 / MB, 1)
    return round(psutil.Process().memory_info().rss / MB, 1)


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `function(*arguments)` in a forked process, so that its memory and caches are its own.

    Raises:
        RuntimeError: the child failed; its traceback is on stderr.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_report, args=(sender, function, arguments))
    child.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"{function.__name__} failed in a child process (status {child.exitcode})") from None
    child.join()
    return found


def _report(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    sender.send(function(*arguments))
    sender.close()
