"""Change one thing, rerun only what depends on it: proven by the dry run's own plan and its reasons."""

import shutil
from pathlib import Path

import pytest
import yaml

from midnight.config import read_yaml
from tests.workflow.harness import REPOSITORY, Workflow, run_snakemake
from tests.workflow.matrix import CHANGES, FOLLOWS, PAGE, page_rows, plan, reasons, row, rules_by_reason, run_override

pytestmark = [pytest.mark.workflow]


def test_a_second_run_has_nothing_to_do(tiny_demo: Workflow) -> None:
    result = tiny_demo.run("all")
    assert result.returncode == 0
    assert "Nothing to be done" in result.stdout + result.stderr


@pytest.mark.parametrize("words", CHANGES)
def test_the_page_says_what_a_change_reruns(tiny_demo: Workflow, words: str) -> None:
    found = row(words, plan(tiny_demo, CHANGES[words]))
    assert page_rows().get(words) == found, f"{PAGE}: the row of the dry run is\n{found}"


def test_every_row_of_the_page_is_checked() -> None:
    assert list(page_rows()) == list(CHANGES)


def test_what_follows_says_from_what(tiny_demo: Workflow) -> None:
    found = reasons(plan(tiny_demo, run_override(optimizer={"base_lr": 0.0031})))
    assert found["Training demo"].startswith("Params have changed")
    assert found["Training demo-hires"].startswith(f"{FOLLOWS}: results/models/demo/")
    assert not any("demo-random" in job for job in found)


def test_that_training_begins_anew_is_said_by_the_dry_run(tiny_demo: Workflow) -> None:
    result = tiny_demo.run("-n", "all", change=run_override(optimizer={"base_lr": 0.0031}))
    line = "run demo: changed since it was trained: optimizer.base_lr 0.001 → 0.0031. Training begins anew at step 0; "
    assert (
        f"midnight: {line}its 4 steps so far are kept in results/models/demo/checkpoints."
        in result.stdout + result.stderr
    )
    assert "was trained: " not in plan(tiny_demo, {"tissue": {"workers": 2}})


def test_a_checkout_is_no_change(tiny_demo: Workflow, tmp_path: Path) -> None:
    """A copy, whose scripts have new times: other tests run the repository's own meanwhile."""
    for name in ("rules", "workflow", "envs", "config"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, copy_function=shutil.copyfile)
    shutil.copyfile(REPOSITORY / "Snakefile", tmp_path / "Snakefile")
    common = ["--directory", tiny_demo.folder, "--configfile", tiny_demo.configfile, "--cores", "2"]
    result = run_snakemake("-n", "all", "--snakefile", tmp_path / "Snakefile", *common)
    assert result.returncode == 0, result.stdout + result.stderr
    assert rules_by_reason(result.stdout) == {}


def test_the_order_of_keys_is_no_change(tiny_demo: Workflow, tmp_path: Path) -> None:
    def turned(value: object) -> object:
        return {key: turned(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    configfile = tmp_path / "turned.yaml"
    configfile.write_text(yaml.safe_dump(turned(read_yaml(tiny_demo.configfile)), sort_keys=False))
    assert list(read_yaml(configfile)) != list(read_yaml(tiny_demo.configfile))
    found = rules_by_reason(plan(Workflow(tiny_demo.folder, configfile), {}))
    assert found.get("params have changed since last execution", ["report"]) == ["report"], found
