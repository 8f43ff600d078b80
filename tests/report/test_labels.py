from pathlib import Path

from midnight.report.columns import KEYS
from midnight.report.labels import asked_tasks, missing_reasons, read_labels


def test_every_column_has_a_reason_that_fits_the_configuration() -> None:
    reasons = missing_reasons({"bach": ["bach", "demo-bach"], "crc": ["crc"]}, ["demo-bach"])
    assert set(reasons) == set(KEYS)
    assert reasons["bach"] == "configured, but it has no score yet"
    assert reasons["crc"] == "not among evaluation.tasks of this run"
    assert reasons["pnd"] == "no such task in config/tasks.yaml"


def test_the_registries_give_sources_and_reasons() -> None:
    labels = read_labels([])
    assert {"init", "run"} <= set(labels.sources.values())
    assert set(labels.reasons.values()) == {"not among evaluation.tasks of this run"}


def test_tasks_are_those_asked_for_also_where_no_list_says_so(tmp_path: Path) -> None:
    """`tasks: null` beside folders, as `midnight evaluate` writes it, ended the report with a TypeError."""
    assert asked_tasks({"tasks": ["bach"]}) == ["bach"]
    assert asked_tasks({"tasks": []}) == []
    assert asked_tasks({"tasks": None, "folders": {"mine": str(tmp_path)}}) == ["mine"]
    assert asked_tasks({"folders": {"mine": str(tmp_path)}}) == ["mine"]
    assert {"bach", "crc"} < set(asked_tasks({"tasks": "all"})) == set(asked_tasks({}))
