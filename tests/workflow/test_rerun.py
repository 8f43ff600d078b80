"""Change one thing, rerun only what depends on it: proven by the dry run's own plan and its reasons."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from midnight.config import read_yaml
from tests.workflow.harness import REPOSITORY, Workflow, copy_workflow, run_snakemake
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
    line = (
        "run demo: changed since it was trained: optimizer.base_lr 0.001 → 0.0031. Training begins anew at step 0 "
        "(to go on instead: midnight train demo --continue-with optimizer.base_lr=…); "
    )
    assert (
        f"midnight: {line}its 4 steps so far are kept in results/models/demo/checkpoints."
        in result.stdout + result.stderr
    )
    assert "was trained: " not in plan(tiny_demo, {"tissue": {"workers": 2}})


def test_a_run_goes_on_with_other_values(tiny_demo: Workflow, tmp_path: Path) -> None:
    change = run_override(optimizer={"base_lr": 0.0005}, training={"iterations": 6})
    made = copy_workflow(tiny_demo, tmp_path, change)
    command = [sys.executable, "-m", "midnight.cli", "train", "demo", "--configfile", str(made.configfile)]

    def train(*values: str) -> "subprocess.CompletedProcess[str]":
        arguments = [*command, "--cores", "2", "--continue-with", *values]
        return subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    unwritten = train("optimizer.base_lr=2e-4", "training.iterations=6")
    assert unwritten.returncode == 1
    text = "{optimizer: {base_lr: 2e-4}, training: {iterations: 6}}"
    assert f"write {text} into runs.demo.override first" in unwritten.stderr
    done = train("optimizer.base_lr=5e-4", "training.iterations=6")
    assert done.returncode == 0, done.stdout + done.stderr
    line = "demo goes on at step 4 with optimizer.base_lr 0.001 → 0.0005; training.iterations 4 → 6"
    assert line in done.stdout
    folder = made.results / "models" / "demo"
    steps = [json.loads(text)["step"] for text in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == 6 and len(steps) == len(set(steps))
    assert read_yaml(folder / "config.yaml")["segments"][0]["until"] == 4
    assert "resumed from step 4" in (made.results / "logs" / "train" / "demo.log").read_text()
    jobs = reasons(plan(made, {}))
    assert "Training demo" not in jobs and "Training demo-hires" in jobs
    assert made.run("results/figures/curves-demo.svg").returncode == 0
    assert "went on at step 4 with optimizer.base_lr" in (made.results / "figures" / "curves-demo.svg").read_text()


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
