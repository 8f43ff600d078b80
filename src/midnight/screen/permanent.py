"""Errors that no further attempt can mend: Snakemake's `retries` are for those that go away by themselves."""

from pathlib import Path
from typing import Any

from snakemake.jobs import Job

from midnight.logs import is_permanent


def retry_no_permanent_errors() -> None:
    """Let a job whose script ended with a configuration error have no further attempt; for the main process.

    Snakemake knows the number of attempts per rule only, and not the exit status of a job on a cluster.
    """
    usual = Job.restart_times.fget
    if usual is None or getattr(usual, "asks_the_log", False):
        return

    def restart_times(job: Any) -> int:
        return 0 if any(is_permanent(Path(log)) for log in job.log) else int(usual(job) or 0)

    restart_times.asks_the_log = True  # type: ignore[attr-defined]
    Job.restart_times = property(restart_times)
