import dataclasses
import json
from pathlib import Path

import pytest

from midnight.config import Evaluation
from midnight.errors import ConfigError
from midnight.evaluate import registry
from midnight.evaluate.prepare.rules import (
    datasets_schema,
    expand,
    group_tasks,
    load_rules,
    pattern_regex,
    rules_for,
)


def test_braces_are_written_out_as_a_shell_does() -> None:
    assert expand("a/{x,y}/b{08..10}.png") == [
        f"a/{kind}/b{number}.png" for kind in "xy" for number in ("08", "09", "10")
    ]
    assert expand("train_{9..10}") == ["train_9", "train_10"]
    assert expand("plain.csv") == ["plain.csv"]


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a/*.png", "a/1.png", True),
        ("a/*.png", "a/b/1.png", False),
        ("a/*.png", "a/1xpng", False),
        ("a/**/*.png", "a/1.png", True),
        ("a/**/*.png", "a/b/c/1.png", True),
        ("**/40X/*.png", "x/40X/1.png", True),
        ("**/40X/*.png", "x/400X/1.png", False),
        ("a/*/*.png", "a/b/1.png", True),
        ("a/*/*.png", "a/1.png", False),
        ("b*_1.png", "bc_1.png", True),
    ],
)
def test_patterns(pattern: str, name: str, fits: bool) -> None:
    assert (pattern_regex(pattern).fullmatch(name) is not None) == fits


def test_all_data_sets_of_the_paper_have_rules_and_demo_data_none() -> None:
    rules, tasks = load_rules(), registry.load_tasks()
    for task in registry.configured_tasks(Evaluation()).values():
        assert rules_for(task, rules).needed, task.name
        assert task.source and task.licence, task.name
    assert not rules_for(tasks["demo-bach"], rules).needed


def test_tasks_with_the_same_folder_share_one_data_set() -> None:
    tasks = registry.select_tasks(["pcam-10shot", "bach", "pcam", "hest-idc", "hest-prad"], "paper")
    assert group_tasks(tasks) == {
        "pcam-10shot": ["pcam-10shot", "pcam"],
        "bach": ["bach"],
        "hest-idc": ["hest-idc"],
        "hest-prad": ["hest-prad"],
    }
    other = dataclasses.replace(tasks["bach"].dataset, root="hest/IDC")
    tasks["bach"] = dataclasses.replace(tasks["bach"], dataset=other)
    assert group_tasks(tasks)["bach"] == ["bach", "hest-idc"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: {bach: {file: {a: 1}}}", "datasets.bach: .*unknown key 'file'"),
        ("datasets: {bach: {files: {a: 0}}}", "datasets.bach: files.a: 0 is less than"),
        (
            "datasets: {bach: {downloads: {../x.zip: {gb: 1}}}}",
            "datasets.bach.downloads: .*could lead out of",
        ),
        ("tasks: {}", "missing key 'datasets'"),
    ],
)
def test_wrong_entries_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "datasets.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"{path}: {message}"):
        load_rules(path)


def test_schema_is_current(repository: Path) -> None:
    written = json.loads((repository / "config" / "schemas" / "datasets.schema.json").read_text())
    assert written == json.loads(json.dumps(datasets_schema())), "run `make schemas`"
