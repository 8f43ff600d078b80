import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from midnight.cli import main, parser
from midnight.logs import TerminatedError
from midnight.ssl.budget.cost import GPUS
from tests.tissue.small_slides import tissue_image, write_slide

# For each command: wrong input that its grammar takes, and words of the one line that says so. A new command is entered
# here. {there}: a file with a line of text, {folder}: an empty folder.
WRONG: dict[str, tuple[list[str], str]] = {
    "init": (["{there}"], "notes.txt: is not empty; name a new folder"),
    "doctor": (["--configfile", "/nowhere.yaml"], "/nowhere.yaml: can't be read: No such file"),
    "config show": (["midnight-12"], "unknown recipe 'midnight-12'; did you mean 'midnight-12k'?"),
    "config check": (["{there}"], "notes.txt: must be a mapping of keys"),
    "bench train": (["midnight-12"], "unknown recipe 'midnight-12'; did you mean 'midnight-12k'?"),
    "slides pin": (["tcga-fpe", "{folder}/m.tsv"], "no cohort 'tcga-fpe'"),
    "tiles show": (["/nowhere.svs"], "/nowhere.svs"),
    "tiles plan": (["--recipe", "nope"], "nope"),
    "tasks status": (["--configfile", "{there}"], "notes.txt: must be a mapping of keys"),
    "tasks prepare": (["nope"], "evaluation.tasks: has no task 'nope'"),
    "train": (["own"], "no run 'own'"),
    "export": (["/nowhere", "{folder}/out", "--to", "timm"], "/nowhere"),
    "quick-check": (["/nowhere.pth", "--task", "bahc"], "'bahc' is no tile or folder task"),
    "evaluate": (["/nowhere.pth", "--tiles", "{folder}"], "/nowhere.pth"),
    "embed": (["/nowhere.pth", "/nowhere", "{folder}/out"], "/nowhere"),
    "summary": (["{folder}"], "{folder}"),
}
HARMLESS = {"config recipes", "config schemas"}
"""Commands without input."""


def leaves(
    top: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """All commands, with those that only have commands of their own."""
    yield words, top
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from leaves(command, (*words, name))


def has_commands(command: argparse.ArgumentParser) -> bool:
    return any(isinstance(action, argparse._SubParsersAction) for action in command._actions)


ALL = {" ".join(words): command for words, command in leaves(parser())}
ENDS = [name for name, command in ALL.items() if not has_commands(command)]


def test_the_walk_finds_the_commands() -> None:
    assert {"", "config", "config show", "doctor", "evaluate"} <= set(ALL)
    assert set(ENDS) == set(WRONG) | HARMLESS


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*name.split(), "--help"])
    said = capsys.readouterr()
    assert caught.value.code == 0 and said.err == ""
    assert said.out.startswith(f"usage: midnight {name}".rstrip())


@pytest.mark.parametrize("name", ENDS)
def test_every_argument_says_what_it_is(name: str) -> None:
    assert [action.dest for action in ALL[name]._actions if not (action.help or "").strip()] == []


@pytest.mark.parametrize("name", ALL)
def test_an_unknown_option_is_status_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*name.split(), "--no-such-option"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: midnight")


@pytest.mark.parametrize("name", [name for name in ALL if has_commands(ALL[name])])
def test_a_missing_or_unknown_command_is_status_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for rest in ([], ["no-such-command"]):
        with pytest.raises(SystemExit) as caught:
            main([*name.split(), *rest])
        assert caught.value.code == 2
        assert (" invalid choice: 'no-such-command'" if rest else " COMMAND") in capsys.readouterr().err


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line_and_status_1(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("notes\n")
    places = {"there": str(tmp_path / "notes.txt"), "folder": str(tmp_path / "empty")}
    arguments, words = WRONG[name]
    with pytest.raises(SystemExit) as caught:
        main([*name.split(), *(item.format(**places) for item in arguments)])
    said = str(caught.value.code)
    assert said.startswith("midnight: error: "), "as text it goes to standard error, with status 1"
    assert words.format(**places) in said
    assert said.count("\n") == 0
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("name", [name for name in WRONG if WRONG[name][0][0][0] != "-"])
def test_missing_arguments_are_status_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    required = [action for action in ALL[name]._actions if not action.option_strings and action.nargs not in ("?", "*")]
    if not required:
        pytest.skip(f"{name} needs none")
    with pytest.raises(SystemExit) as caught:
        main(name.split())
    assert caught.value.code == 2
    assert "the following arguments are required" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "words"), [(KeyboardInterrupt, 130, "Ctrl-C"), (TerminatedError, 143, "SIGTERM")]
)
def test_an_interrupt_is_one_line_and_its_status(error: type[BaseException], status: int, words: str) -> None:
    script = (
        "import sys, midnight.cli as cli, midnight.config.recipes\n"
        "from midnight.logs import TerminatedError\n"
        f"def stop(): raise {error.__name__}\n"
        "cli.recipe_lines = stop\n"
        "cli.main(['config', 'recipes'])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == status
    assert result.stderr == f"midnight: stopped by {words}; what is complete is kept: run again to go on\n"


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    command = [sys.executable, "-m", "midnight.cli", "config", "show", "midnight-12k"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait() in (1, -signal.SIGPIPE, 120) and "Traceback" not in said


def test_config_recipes_and_schemas_print_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "recipes"])
    assert "midnight-12k-392 " in capsys.readouterr().out


def test_config_check_says_what_a_configuration_asks_for(capsys: pytest.CaptureFixture[str], repository: Path) -> None:
    main(["config", "check", str(repository / "config" / "demo.yaml")])
    assert capsys.readouterr().out.startswith("OK: cohorts demo; runs demo, demo-hires; models ")


def test_config_show_prints_the_resolved_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "show", "midnight-12k"])
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["training"]["iterations"] == 1_000_000
    assert shown["tiles"]["mpps"] == [0.25, 0.5, 1.0, 2.0]


def test_config_show_says_below_the_recipe_what_a_run_takes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "show", "ablation", "--gpu", "a100", "--mfu", "0.4", "--price", "1.25", "--watts", "350"])
    out = capsys.readouterr().out
    assert yaml.safe_load(out)["name"] == "ablation"
    assert "at 40% MFU of A100 (312 TFLOP/s bfloat16, dense), 1.25 USD per GPU-hour, 350 W per GPU" in out
    for what in ("parameters", "FLOPs per image", "memory per GPU", "GPU-hours", "cost", "energy", "fits H200, 141 GB"):
        assert f"\n# {what}" in out or f"\n#   {what}" in out


def test_config_show_json_has_recipe_and_plain_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "show", "ablation", "--json", "--price", "2"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["recipe"]["name"] == "ablation"
    assert shown["parameters"]["student"] > shown["parameters"]["backbone"] > 80e6
    assert shown["cost"]["usd"] == pytest.approx(2 * shown["cost"]["gpu_hours"])
    assert [plan["own"] for plan in shown["memory_per_gpu"]].count(True) == 1


@pytest.mark.parametrize("gpu", GPUS)
def test_every_gpu_can_be_named(gpu: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "show", "demo", "--gpu", gpu])
    assert f"MFU of {GPUS[gpu].name}" in capsys.readouterr().out


def test_a_share_of_the_peak_above_1_is_one_line() -> None:
    with pytest.raises(SystemExit, match=r"^midnight: error: --mfu: 45\.0 is no share"):
        main(["config", "show", "demo", "--mfu", "45"])


def test_unknown_recipe_is_one_line_and_status_1() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "midnight.cli", "config", "show", "nope"], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stderr.startswith("midnight: error: unknown recipe 'nope'")
    assert result.stderr.count("\n") == 1


def test_tiles_show_takes_a_resolution_and_a_segmenter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blind = write_slide(tmp_path / "blind.svs", tissue_image(900, 900, [(60, 60, 780, 780)]), None)
    sheet = str(tmp_path / "sheet.png")
    with pytest.raises(SystemExit, match=r"blind\.svs: no resolution"):
        main(["tiles", "show", str(blind), "--output", sheet])
    main(["tiles", "show", str(blind), "--output", sheet, "--mpp", "0.5", "--count", "2"])
    assert capsys.readouterr().out == f"{sheet}\n"
    brown = tissue_image(900, 900, [])
    brown[60:840, 60:840] = (150, 110, 70)
    slide = str(write_slide(tmp_path / "brown.svs", brown, 0.5))
    with pytest.raises(SystemExit, match=r"set tissue\.segmenter: otsu"):
        main(["tiles", "show", slide, "--output", sheet])
    main(["tiles", "show", slide, "--output", sheet, "--segmenter", "otsu", "--count", "2"])


@pytest.mark.parametrize("mpp", ["0", "-1", "nan", "inf", "fine"])
def test_a_resolution_is_a_positive_number(mpp: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["tiles", "show", "x.svs", "--mpp", mpp])
    assert caught.value.code == 2
    assert "argument --mpp:" in capsys.readouterr().err
