"""Change one thing, rerun only what depends on it: proven by the dry run's own plan and its reasons."""

import re
from dataclasses import dataclass
from typing import Any

import pytest

from tests.workflow.harness import Workflow

pytestmark = [pytest.mark.workflow]
DATA_RULES = {"demo_slides", "pin_manifest", "fetch_slides", "segment_tissue", "join_tissue"}


@dataclass(frozen=True)
class Plan:
    """What a dry run would do: rules, and each job's message with its reason."""

    rules: set[str]
    reasons: dict[str, str]


def plan(workflow: Workflow, change: dict[str, Any]) -> Plan:
    result = workflow.run("-n", "all", change=change)
    assert result.returncode == 0, result.stdout
    rules = set(re.findall(r"^(\w+) +\d+$", result.stdout, re.MULTILINE)) - {"all", "total"}
    return Plan(rules, dict(re.findall(r"^Job \d+: (.+)\nReason: (.+)$", result.stdout, re.MULTILINE)))


def test_a_second_run_has_nothing_to_do(tiny_demo: Workflow) -> None:
    result = tiny_demo.run("all")
    assert result.returncode == 0
    assert "Nothing to be done" in result.stdout + result.stderr


def test_a_training_parameter_reruns_training_and_what_follows(tiny_demo: Workflow) -> None:
    found = plan(tiny_demo, {"runs": {"demo": {"override": {"optimizer": {"base_lr": 0.0031}}}}})
    assert found.rules >= {"train", "embed", "score", "tables", "report"}
    assert not found.rules & {*DATA_RULES, "init_model", "demo_benchmarks"}
    assert found.reasons["Training demo"].startswith("Params have changed")
    assert found.reasons["Training demo-hires"].startswith("Input files updated by another job: results/models/demo/")
    assert "Scoring demo at 98 px" in found.reasons
    assert not any("demo-random" in job for job in found.reasons)


def test_a_tissue_parameter_leaves_the_download_alone(tiny_demo: Workflow) -> None:
    found = plan(tiny_demo, {"tissue": {"close_um": 50}})
    assert found.rules >= {"segment_tissue", "join_tissue", "train", "report"}
    assert not found.rules & {"pin_manifest", "fetch_slides", "init_model"}


def test_settings_of_download_and_parallelism_rerun_no_work(tiny_demo: Workflow) -> None:
    found = plan(tiny_demo, {"gdc": {"parallel": 2, "retries": 9}, "tissue": {"workers": 2}})
    assert found.rules == {"report"}, "the page alone, since it shows the configuration"


def test_the_architecture_reruns_the_random_init_too(tiny_demo: Workflow) -> None:
    found = plan(tiny_demo, {"runs": {"demo": {"override": {"backbone": {"kwargs": {"depth": 3}}}}}})
    assert "init_model" in found.rules
    assert "Scoring demo-random at 98 px" in found.reasons
