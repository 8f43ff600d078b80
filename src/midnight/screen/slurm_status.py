"""What Slurm says of a job, in the words that Snakemake's Slurm plugin takes for an end.

The plugin waits for ever for a job whose end it does not know: one that was preempted and is not queued again, one that
sacct calls "CANCELLED by 1000", one that Slurm has forgotten.
"""

import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

log = logging.getLogger(__name__)

PLUGIN = "snakemake_executor_plugin_slurm"
FAILED = "FAILED"
ENDS = {"EXPIRED", "LAUNCH_FAILED", "RECONFIG_FAIL", "REVOKED", "SPECIAL_EXIT"}
"""Further states in which a job never runs again."""
GONE = 3
"""Answers in a row without a job that was there before, after which it counts as failed [our choice]."""

Answer = tuple[dict[str, str] | None, float | None]
"""A state for each job, and seconds; None where Slurm did not answer."""
Query = Callable[[str, Any], Awaitable[Answer]]


class Known:
    """The states of one workflow's jobs, completed from one answer to the next."""

    def __init__(self, requeued: bool) -> None:
        """Nothing is known yet.

        Args:
            requeued: whether Slurm queues a preempted job again.
        """
        self.ends = ENDS if requeued else ENDS | {"PREEMPTED"}
        self.missed: dict[str, int] = {}  # of jobs that have not ended: answers without them

    def complete(self, states: dict[str, str]) -> dict[str, str]:
        """States that the plugin understands: of jobs that ended in other ways, and of those that are gone, FAILED."""
        known = {job: self._plain(state) for job, state in states.items()}
        for job, state in known.items():
            if state in (FAILED, "COMPLETED"):
                self.missed.pop(job, None)
            else:
                self.missed[job] = 0
        for job in self.missed.keys() - known.keys():
            self.missed[job] += 1
            if self.missed[job] == GONE:
                log.warning("Slurm does not know job %s any more: taken as failed", job)
            if self.missed[job] >= GONE:
                known[job] = FAILED
        return known

    def _plain(self, state: str) -> str:
        """Without what sacct adds: CANCELLED by 1000, CANCELLED+."""
        word = state.split()[0].rstrip("+") if state.split() else state
        return FAILED if word in self.ends else word


def know_all_ends(requeued: bool) -> None:
    """Let the plugin, where it is in use, see every end; for the main process.

    Args:
        requeued: whether Slurm queues a preempted job again (not slurm-no-requeue).
    """
    plugin = sys.modules.get(PLUGIN)
    usual: Query | None = getattr(plugin, "query_job_status", None)
    if plugin is None or usual is None or getattr(usual, "knows_all_ends", False):
        return
    plugin.query_job_status = _completed(usual, Known(requeued))  # type: ignore[attr-defined]


def _completed(usual: Query, known: Known) -> Query:
    async def query(command: str, logger: Any) -> Answer:
        states, seconds = await usual(command, logger)
        return (None if states is None else known.complete(states)), seconds

    query.knows_all_ends = True  # type: ignore[attr-defined]
    return query
