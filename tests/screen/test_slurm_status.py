"""Ends of Slurm jobs that Snakemake's plugin does not know; tests/workflow/test_slurm.py has a real one."""

import asyncio
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from midnight.screen.slurm_status import PLUGIN, Known, know_all_ends


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ("RUNNING", "RUNNING"),
        ("COMPLETED", "COMPLETED"),
        ("CANCELLED by 1000", "CANCELLED"),
        ("CANCELLED+", "CANCELLED"),
        ("OUT_OF_MEMORY", "OUT_OF_MEMORY"),
        ("LAUNCH_FAILED", "FAILED"),
        ("REVOKED", "FAILED"),
        ("", ""),
    ],
)
def test_states_in_the_plugins_words(state: str, seen: str) -> None:
    assert Known(requeued=True).complete({"7": state}) == {"7": seen}


def test_a_preempted_job_has_ended_unless_slurm_queues_it_again() -> None:
    assert Known(requeued=False).complete({"7": "PREEMPTED"}) == {"7": "FAILED"}
    assert Known(requeued=True).complete({"7": "PREEMPTED"}) == {"7": "PREEMPTED"}


def test_a_job_that_is_gone_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    known = Known(requeued=False)
    known.complete({"7": "RUNNING", "8": "RUNNING", "9": "COMPLETED"})
    assert known.complete({"8": "RUNNING"}) == {"8": "RUNNING"}
    assert known.complete({"7": "RUNNING"}) == {"7": "RUNNING"}, "an answer may lack a job once"
    for _ in range(2):
        assert "7" not in known.complete({"8": "RUNNING"})
    assert known.complete({"8": "RUNNING"}) == {"7": "FAILED", "8": "RUNNING"}
    assert known.complete({"8": "COMPLETED"}) == {"7": "FAILED", "8": "COMPLETED"}
    assert caplog.text.count("does not know job 7 any more") == 1
    assert "9" not in known.complete({}), "what has ended well may be forgotten"


def test_the_plugins_query_is_completed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [({"7": "PREEMPTED"}, 0.1), (None, None)]

    async def query(command: str, logger: Any) -> Any:
        assert command == "squeue"
        return answers.pop(0)

    plugin = SimpleNamespace(query_job_status=query)
    monkeypatch.setitem(sys.modules, PLUGIN, plugin)  # type: ignore[arg-type]
    know_all_ends(requeued=False)
    completed = plugin.query_job_status
    know_all_ends(requeued=False)
    assert plugin.query_job_status is completed is not query
    assert asyncio.run(completed("squeue", None)) == ({"7": "FAILED"}, 0.1)
    assert asyncio.run(completed("squeue", None)) == (None, None)
    monkeypatch.delitem(sys.modules, PLUGIN)
    know_all_ends(requeued=False)  # on a laptop there is no plugin


def test_the_plugin_has_what_is_completed() -> None:
    plugin = pytest.importorskip(PLUGIN)
    assert asyncio.iscoroutinefunction(plugin.query_job_status)
