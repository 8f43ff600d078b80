"""The walk through the README's doors, with commands that take no time."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.benchmarks.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]
TABLE = "| you have | one command |\n|---|---|\n" + "".join(f"| [{n}](#x) | `{n} all` | 1 min |\n" for n in "abcd")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_script("doors", monkeypatch)


def test_the_commands_are_the_readme_s(script: ModuleType) -> None:
    found = script.commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found["demo"] == "make demo"
    assert found["weights"].startswith("midnight evaluate WEIGHTS --tiles FOLDER")
    assert "config/local.yaml" in found["slides"] and "--profile slurm" in found["cluster"]


def test_a_readme_without_the_table_is_said(script: ModuleType) -> None:
    with pytest.raises(SystemExit, match="0 commands"):
        script.commands("# nothing")


def test_blanks_are_filled(script: ModuleType) -> None:
    folders = Path("/my slides"), Path("/my tiles"), Path("/w")
    evaluate, out = script.fill("weights", "midnight evaluate WEIGHTS --tiles FOLDER", *folders)
    assert evaluate == f"midnight evaluate /w --tiles '/my tiles' --out {out}"
    train, _ = script.fill("slides", "snakemake all", *folders)
    assert "/my slides" in train and "/my tiles" in train
    assert script.fill("cluster", "snakemake all", *folders)[0].endswith(" -n")


def test_a_walk_says_what_there_is_and_what_failed(script: ModuleType, tmp_path: Path) -> None:
    scores = "results/demo/scores/demo/98"
    made = f"mkdir -p {scores} && echo {{}} > {scores}/a.json && seq 9999 > results/demo/report.html"
    good = script.walk("demo", made, tmp_path, "results/demo")
    assert (good.status, good.shows) == (0, "report of 0.0 MB, scores of 1 models") and good.megabytes > 0.04
    assert script.walk("cluster", "printf 'x 1\\ntotal   1234\\n'", tmp_path, "").shows == "a plan of 1,234 jobs"
    bad = script.walk("slides", "echo no slides; exit 3", tmp_path, "results/local")
    assert (bad.status, bad.shows) == (3, "no slides")
    assert script.walk("slides", "true", tmp_path, "results/local").shows == ""


def test_the_page_does_not_say_where_folders_lie(script: ModuleType) -> None:
    clone = Path("/clone/x")
    command, _ = script.fill("slides", "snakemake --configfile config/local.yaml", clone / "s", Path("/data/t"), Path())
    page = script.page([script.Walk("slides", f"{command} {clone}/results/demo", 60.0, 1.0, 0, "")], clone)
    assert "clone" not in page and "data" not in page
    assert "path: 's" in page.replace("'\"'\"'", "'")
    assert "config/local.yaml" in page and " results/demo`" in page


def test_a_closed_door_is_an_error(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = script.Walk("slides", "snakemake", 60.0, 1.0, 0, "")
    monkeypatch.setattr(script, "walks", lambda clone, options: iter([closed]))
    monkeypatch.setattr(script.sys, "argv", ["doors.py", "--json"])
    assert script.main() == 1
    printed = capsys.readouterr().out
    assert "FAILED: slides" in printed and json.loads(printed.splitlines()[-1])["ours"] == 0


def test_doors_that_need_the_demo_say_so(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.sys, "argv", ["doors.py", "--doors", "weights"])
    with pytest.raises(SystemExit) as error:
        script.main()
    assert error.value.code == 2
