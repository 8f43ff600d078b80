"""Every command that writes where a person says: what it did not make stays, and so do its inputs."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from midnight.cli import main, parser
from midnight.config import load_recipe
from midnight.demo.gdc_service import main as serve
from midnight.ssl.exports.model_folder import export_teacher
from midnight.ssl.model.backbone import build_vit
from midnight.tiles.draw.examples import draw_sheet, write_sheet
from tests.benchmarks.scripts import FOLDER as BENCHMARKS
from tests.benchmarks.scripts import load_script
from tests.ssl.tiny import tiny_recipe
from tests.tissue.small_slides import make_index, tissue_image, write_slide

# What a command writes where a person says: a file, a folder, or nothing. A new command has to be entered here.
WRITES = {
    "init": None,  # into a new folder only
    "doctor": None,
    "config show": None,
    "config check": None,
    "config recipes": None,
    "config schemas": None,
    "bench train": None,
    "slides pin": "file",
    "tiles show": "file",
    "tiles plan": None,
    "tasks status": None,
    "tasks prepare": None,
    "train": None,
    "export": "folder",
    "quick-check": None,
    "evaluate": "folder",
    "embed": "folder",
    "summary": None,
}


def commands(
    top: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    inner = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield " ".join(words), top
    for name, command in (inner[0].choices if inner else {}).items():
        yield from commands(command, (*words, name))


def test_the_table_has_every_command_and_those_that_write_take_force() -> None:
    found = dict(commands(parser()))
    assert set(found) == set(WRITES)
    forced = {name for name, command in found.items() if "--force" in command.format_help()}
    assert forced == {name for name, kind in WRITES.items() if kind}


@dataclass(frozen=True)
class Command:
    """A command line without its output, the output's name, the input, and how the output is given."""

    run: Callable[[Path, bool], None]
    output: Path
    source: Path


def through_main(*words: str | Path, option: str = "") -> Callable[[Path, bool], None]:
    def run(output: Path, force: bool) -> None:
        given = [*map(str, words), *([option] if option else []), str(output), *(["--force"] if force else [])]
        main(given)

    return run


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = tissue_image(900, 900, [(60, 60, 780, 780)])
    return write_slide(tmp_path_factory.mktemp("slide") / "copy.svs", image, 0.5, 20)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe()
    folder = tmp_path_factory.mktemp("trained") / "run"
    export_teacher(build_vit(recipe.backbone, recipe.crops.global_size), recipe, folder, 1, "demo")
    return folder


def configured(folder: Path, slides: Path) -> Path:
    cohorts = {"local": {"source": "local", "path": str(slides)}}
    configfile = folder / "config.yaml"
    configfile.write_text(yaml.safe_dump({"cohorts": cohorts, "data": "real", "runs": {}, "evaluation": {"tasks": []}}))
    return configfile


def show(folder: Path, slide: Path) -> Command:
    copy = Path(shutil.copy(slide, folder / "copy.svs"))
    run = through_main("tiles", "show", copy, "--count", "2", option="--output")
    return Command(run, folder / "sheet.png", copy)


def show_index(folder: Path, slide: Path) -> Command:
    copy = Path(shutil.copy(slide, folder / "copy.svs"))
    index = make_index(folder, [copy])
    return Command(through_main("tiles", "show", index, "--count", "2", option="--output"), folder / "sheet.png", copy)


def pin(folder: Path, slide: Path) -> Command:
    (folder / "slides").mkdir()
    copy = Path(shutil.copy(slide, folder / "slides" / "copy.svs"))
    configfile = configured(folder, copy.parent)
    return Command(through_main("slides", "pin", "--configfile", configfile, "local"), folder / "m.tsv", copy)


def pin_list(folder: Path, slide: Path) -> Command:
    table = folder / "list.csv"
    table.write_text(f"path\n{slide}\n")
    configfile = configured(folder, table)
    return Command(through_main("slides", "pin", "--configfile", configfile, "local"), folder / "m.tsv", table)


FILES = {"tiles show": show, "tiles show of an index": show_index, "slides pin": pin, "slides pin of a list": pin_list}


@pytest.fixture(params=FILES)
def command(request: pytest.FixtureRequest, tmp_path: Path, slide: Path) -> Command:
    return FILES[request.param](tmp_path, slide)


def refused(command: Command, output: Path, why: str, force: bool = False) -> None:
    before = output.read_bytes() if output.is_file() else None
    with pytest.raises(SystemExit) as caught:
        command.run(output, force)
    assert str(caught.value).startswith(f"midnight: error: {output}: ") and why in str(caught.value)
    assert (output.read_bytes() if output.is_file() else None) == before


def test_what_the_command_did_not_make_stays_without_force(command: Command) -> None:
    command.output.write_text("a year's notes")
    refused(command, command.output, "did not write it")
    command.run(command.output, True)
    assert command.output.stat().st_size > 100


def test_the_command_replaces_what_it_made(command: Command) -> None:
    command.run(command.output, False)
    first = command.output.stat().st_ino
    command.run(command.output, False)
    assert command.output.stat().st_ino != first


@pytest.mark.parametrize("force", [False, True])
def test_an_input_stays_by_whatever_name(command: Command, force: bool, tmp_path: Path) -> None:
    content = command.source.read_bytes()
    (tmp_path / "soft").symlink_to(command.source)
    os.link(command.source, tmp_path / "hard")
    for output in (command.source, tmp_path / "soft", tmp_path / "hard"):
        refused(command, output, "is read by this command", force)
    assert command.source.read_bytes() == content


def test_a_folder_is_no_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    refused(command, tmp_path / "folder", "is a folder", force=True)
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_manifest_of_another_cohort_or_changed_by_hand_stays(tmp_path: Path, slide: Path) -> None:
    made = pin(tmp_path, slide)
    made.run(made.output, False)
    text = made.output.read_text()
    made.output.write_text(text.replace("# cohort: local", "# cohort: other"))
    refused(made, made.output, "did not write it")
    by_hand = text + text.splitlines()[-1].replace("copy", "mine") + "\n"
    made.output.write_text(by_hand)
    refused(made, made.output, "did not write it")
    assert made.output.read_text() == by_hand
    refused(made, tmp_path / "config.yaml", "is read by this command", force=True)


@pytest.mark.parametrize("target", ["timm", "hf", "eva"])
def test_an_export_keeps_what_is_there(tmp_path: Path, trained: Path, target: str) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    weights = (run / "teacher.safetensors").read_bytes()
    made = Command(through_main("export", run, "--to", target), tmp_path / "out", run)
    (tmp_path / "link").symlink_to(run)
    (tmp_path / "around").mkdir()
    (tmp_path / "around" / "held").symlink_to(run)
    for output in (run, tmp_path / "link", tmp_path / "around"):
        with pytest.raises(SystemExit, match="is read by this command"):
            made.run(output, True)
    refused(made, run / "model.json", "is a file", force=True)
    made.output.mkdir()
    (made.output / "model.safetensors").write_text("another model")
    refused(made, made.output, "is not empty")
    assert (made.output / "model.safetensors").read_text() == "another model"
    made.run(made.output, True)
    made.run(tmp_path / "new", False)
    made.run(tmp_path / "new", False)
    (tmp_path / "new" / "notes.md").write_text("mine")
    with pytest.raises(SystemExit, match=r"notes\.md: was changed or put there"):
        made.run(tmp_path / "new", False)
    assert (run / "teacher.safetensors").read_bytes() == weights


def test_an_export_for_one_library_is_not_replaced_by_another(tmp_path: Path, trained: Path) -> None:
    main(["export", str(trained), str(tmp_path / "out"), "--to", "timm"])
    with pytest.raises(SystemExit, match="midnight export --to hf` did not write it"):
        main(["export", str(trained), str(tmp_path / "out"), "--to", "hf"])


def test_exported_files_have_the_users_permissions(tmp_path: Path, trained: Path) -> None:
    before = os.umask(0o027)
    try:
        main(["export", str(trained), str(tmp_path / "out"), "--to", "timm"])
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {0o640}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


def test_the_demos_service_keeps_files_that_it_did_not_write(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    for notes, why in ((tmp_path / "notes", "did not write it"), (tmp_path / "service" / "notes", "is read by this")):
        notes.write_text("mine")
        with pytest.raises(SystemExit, match=why):
            serve(["--folder", str(tmp_path / "service"), "--url-file", str(notes)])
        assert notes.read_text() == "mine"


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_benchmarks_keep_files_that_they_did_not_write(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(SystemExit, match=r"notes\.md: is there, and this command did not write it"):
        load_script(name, monkeypatch).main(["--quick", "--out", str(tmp_path / "notes.md")])
    assert (tmp_path / "notes.md").read_text() == "mine"


def test_a_benchmark_replaces_its_own_page_and_none_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_script("tiles", monkeypatch)
    from tiles_support import page

    options = argparse.Namespace(out=tmp_path / "page.md", force=False)
    monkeypatch.setattr(sys, "argv", ["tiles.py", "--quick", "--force", "--out", str(options.out)])
    page.check_out(options)
    page.write_page(options.out, "Title", "Summary.", {})
    assert "`python benchmarks/tiles.py --quick`" in options.out.read_text()
    page.check_out(options)
    monkeypatch.setattr(sys, "argv", ["soak.py"])
    with pytest.raises(SystemExit, match="did not write it"):
        page.check_out(options)


def test_arrays_of_a_sheet_do_not_depend_on_the_mark(tmp_path: Path, slide: Path) -> None:
    examples = write_sheet(slide, load_recipe("midnight-12k").tiles, 2, 0, tmp_path / "sheet.png")
    drawn = cv2.cvtColor(draw_sheet(examples), cv2.COLOR_RGB2BGR)
    assert np.array_equal(cv2.imread(str(tmp_path / "sheet.png")), drawn)
