"""Change one thing, rerun only what depends on it: proven by the dry run's own plan."""

import re
from typing import Any

import pytest

from tests.workflow.harness import Workflow

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("demo")]


def planned(workflow: Workflow, change: dict[str, Any] | None = None) -> dict[str, str]:
    """Rule and output → reason, of every job that a dry run would start."""
    result = workflow.run("-n", "all", change=change)
    assert result.returncode == 0, result.stderr
    jobs: dict[str, str] = {}
    for block in re.split(r"\n\n+", result.stdout + result.stderr):
        rule = re.search(r"(?:local)?(?:rule|checkpoint) (\w+):", block)
        output = re.search(r"output: (.*)", block)
        reason = re.search(r"reason: (.*)", block, re.IGNORECASE)
        if rule and reason:
            jobs[f"{rule[1]} {output[1] if output else ''}"] = reason[1]
    return jobs


def rules(jobs: dict[str, str]) -> set[str]:
    return {job.split()[0] for job in jobs}


def test_a_second_run_has_nothing_to_do(tiny_demo: Workflow) -> None:
    result = tiny_demo.run("all")
    assert result.returncode == 0
    assert "Nothing to be done" in result.stdout + result.stderr


def test_a_training_parameter_reruns_training_and_what_follows(tiny_demo: Workflow) -> None:
    change = {"runs": {"demo": {"override": {"optimizer": {"base_lr": 0.001}}}}}
    jobs = planned(tiny_demo, change)
    assert rules(jobs) >= {"train", "embed", "score", "report"}
    assert not rules(jobs) & {
        "demo_slides",
        "pin_manifest",
        "fetch_slides",
        "segment_tissue",
        "join_tissue",
        "init_model",
    }
    assert not any("demo-random" in job for job in jobs)
    (reason,) = (jobs[job] for job in jobs if job.startswith("train"))
    assert "Params have changed" in reason


def test_a_tissue_parameter_leaves_the_download_alone(tiny_demo: Workflow) -> None:
    jobs = planned(tiny_demo, {"tissue": {"close_um": 50}})
    assert rules(jobs) >= {"segment_tissue", "join_tissue", "train", "report"}
    assert not rules(jobs) & {"pin_manifest", "fetch_slides", "init_model"}


def test_a_download_setting_reruns_nothing(tiny_demo: Workflow) -> None:
    assert planned(tiny_demo, {"gdc": {"parallel": 2, "retries": 9}}) == {}


def test_the_architecture_reruns_the_random_init_too(tiny_demo: Workflow) -> None:
    jobs = planned(tiny_demo, {"runs": {"demo": {"override": {"backbone": {"kwargs": {"depth": 3}}}}}})
    assert "init_model" in rules(jobs)
    assert any("demo-random" in job for job in jobs if job.startswith("score"))
