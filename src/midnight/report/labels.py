"""What the registries say about models and tasks, as far as the report needs it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from midnight.report.columns import KEYS


@dataclass(frozen=True)
class Labels:
    """Model sources (`init`, `run`, `eva`, …), models' training runs, and why columns were not run."""

    sources: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


def read_labels(configured: list[str], weights: Mapping[str, Any] | None = None) -> Labels:
    """Labels from `config/models.yaml` and `config/tasks.yaml`.

    Args:
        configured: tasks of the resolved configuration (`evaluation.tasks`).
        weights: its models (`evaluation.weights`).
    """
    from midnight.evaluate.registry import load_models, load_tasks, own_models

    models, tasks = load_models() | own_models(weights or {}), load_tasks()
    sources = {name: str(model.source) for name, model in models.items()}
    runs = {name: str(model.run) for name, model in models.items() if getattr(model, "run", None)}
    by_column: dict[str, list[str]] = {}
    for name, task in tasks.items():
        by_column.setdefault(str(task.column).lower(), []).append(name)
    return Labels(sources, runs, missing_reasons(by_column, configured))


def asked_tasks(evaluation: Mapping[str, Any]) -> list[str]:
    """Names of the tasks that a configuration's section `evaluation` asks for, also where it says `all` or nothing."""
    if isinstance(evaluation.get("tasks"), list):
        return list(evaluation["tasks"])
    from midnight.config import Evaluation, build
    from midnight.evaluate.registry import configured_tasks

    return list(configured_tasks(build(Evaluation, evaluation, "evaluation")))


def missing_reasons(by_column: Mapping[str, list[str]], configured: list[str]) -> dict[str, str]:
    """Why each of the paper's columns may hold a dash.

    Args:
        by_column: column: tasks of `config/tasks.yaml`.
        configured: tasks of the configuration.
    """
    reasons = {}
    for key in KEYS:
        names = by_column.get(key, [])
        if not names:
            reasons[key] = "no such task in config/tasks.yaml"
        elif set(names) & set(configured):
            reasons[key] = "configured, but it has no score yet"
        else:
            reasons[key] = "not among evaluation.tasks of this run"
    return reasons
