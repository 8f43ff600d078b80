"""What a change reruns, as Snakemake's own dry run plans it: the rows of docs/reruns.md."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.workflow.harness import REPOSITORY, Workflow

PAGE = REPOSITORY / "docs" / "reruns.md"
FOLLOWS = "Input files updated by another job"


def run_override(**value: Any) -> dict[str, Any]:
    """A change of the demo's first run."""
    return {"runs": {"demo": {"override": value}}}


CHANGES: Mapping[str, dict[str, Any]] = {
    "nothing": {},
    "`training`: `log_every`, `probe_every`, `workers`, `checkpoint_every`, `keep_checkpoints`, `max_nonfinite`, …": (
        run_override(training={"log_every": 3, "workers": 1, "keep_checkpoints": 5, "max_nonfinite": 7})
    ),
    "`gdc.parallel`, `gdc.retries`, `tissue.workers`": {
        "gdc": {"parallel": 2, "retries": 9},
        "tissue": {"workers": 2},
    },
    "a run's `optimizer`, `loss`, `crops`, `heads`, `training.iterations`, …": run_override(
        optimizer={"base_lr": 0.0031}
    ),
    "a run's `tiles` (a filter, µm/px, the stain augmentation)": run_override(tiles={"hsv_filter": None}),
    "a run's `backbone`": run_override(backbone={"kwargs": {"depth": 3}}),
    "a run's weights of its cohorts": {"runs": {"demo": {"cohorts": {"demo": 2.0}}}},
    "`tissue` (how masks are made)": {"tissue": {"close_um": 50}},
    "one more model": {"evaluation": {"models": ["demo-random", "demo", "colour-statistics"]}},
    "one model less": {"evaluation": {"models": ["demo"]}},
    "a task more or less": {"evaluation": {"tasks": ["demo-hest-a"]}},
    "`evaluation.poolings`": {"evaluation": {"poolings": ["cls"]}},
    "`seed`": {"seed": 5},
}


def plan(workflow: Workflow, change: dict[str, Any]) -> str:
    """The output of a dry run of `all`.

    Raises:
        AssertionError: it failed.
    """
    result = workflow.run("-n", "all", change=change)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def reasons(output: str) -> dict[str, str]:
    """Each job's message, with its reason."""
    return dict(re.findall(r"^Job \d+: (.+)\nReason: (.+)$", output, re.MULTILINE))


def rules_by_reason(output: str) -> dict[str, list[str]]:
    """Rules by the kind of reason that runs them, as the dry run sums them up."""
    _, _, summary = output.partition("\nReasons:\n")
    found = re.findall(r"^    (.+):\n        (.+)$", summary, re.MULTILINE)
    return {reason: names.split(", ") for reason, names in found}


def row(words: str, output: str) -> str:
    """A change's row of the page: jobs that it touches itself, and rules of what follows from them."""
    own = sorted(job for job, reason in reasons(output).items() if not reason.startswith(FOLLOWS))
    following = set(rules_by_reason(output).get(FOLLOWS.lower(), [])) - {"all"}
    return f"| {words} | {_cell(_figures(own, 'Drawing '))} | {_cell(_figures(sorted(following), 'draw_'))} |"


def _figures(names: list[str], prefix: str) -> list[str]:
    """All figures as one."""
    rest = [name for name in names if not name.startswith(prefix)]
    return rest if len(rest) == len(names) else [*rest, "figures"]


def _cell(names: list[str]) -> str:
    return ", ".join(names) or "nothing"


def page_rows(path: Path = PAGE) -> dict[str, str]:
    """The page's rows of three cells, without their head, by the first one."""
    rows = re.findall(r"^(\| ([^|]+) \|[^|]+\|[^|]+\|)$", path.read_text(), re.MULTILINE)
    return {words: whole for whole, words in rows[1:]}
