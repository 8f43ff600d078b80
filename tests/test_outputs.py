import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from midnight.errors import MidnightError
from midnight.outputs import FOLDER_MARK, check_file, png_by, sign_png, signed_folder, text_with

Link = Callable[[Path, Path], None]
OURS = text_with("# written by us")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "slide.svs"
    path.write_bytes(b"slide")
    return path


def symlink(at: Path, to: Path) -> None:
    at.symlink_to(to)


def hard_link(at: Path, to: Path) -> None:
    os.link(to, at)


def never(_: Path) -> Iterator[str]:
    raise AssertionError("inputs are not looked at where nothing is to be replaced")
    yield ""


def test_a_new_file_costs_nothing(tmp_path: Path) -> None:
    check_file(tmp_path / "new", never(tmp_path), OURS)
    assert not (tmp_path / "new").exists()


def test_only_our_own_file_is_replaced_unless_forced(tmp_path: Path, source: Path) -> None:
    ours, foreign = tmp_path / "ours.txt", tmp_path / "foreign.txt"
    ours.write_text("# written by us\n")
    foreign.write_text("a year's notes")
    check_file(ours, [source], OURS)
    with pytest.raises(MidnightError, match=r"foreign\.txt: is there, and this command did not write it.*--force"):
        check_file(foreign, [source], OURS)
    check_file(foreign, [source], OURS, force=True)


@pytest.mark.parametrize("link", [symlink, hard_link])
@pytest.mark.parametrize("force", [False, True])
def test_an_input_is_never_replaced_by_whatever_name(tmp_path: Path, source: Path, link: Link, force: bool) -> None:
    link(tmp_path / "other.png", source)
    for output in (source, tmp_path / "other.png", tmp_path / "." / "slide.svs"):
        with pytest.raises(MidnightError, match="is read by this command"):
            check_file(output, [tmp_path / "gone", source], lambda _: True, force)


@pytest.mark.parametrize("force", [False, True])
def test_folders_and_devices_are_no_files(tmp_path: Path, force: bool) -> None:
    with pytest.raises(MidnightError, match="is a folder"):
        check_file(tmp_path, [], OURS, force)
    with pytest.raises(MidnightError, match="is no ordinary file"):
        check_file(Path("/dev/null"), [], OURS, force)


def test_a_link_to_nowhere_is_somebodys(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "not mounted now")
    with pytest.raises(MidnightError, match="did not write it"):
        check_file(tmp_path / "link", [], OURS)


def write(folder: Path, source: Path, command: str = "us", force: bool = False, **files: str) -> None:
    with signed_folder(folder, [source], command, force) as checked:
        checked.mkdir(exist_ok=True)
        for name, text in files.items():
            (checked / name).unlink(missing_ok=True)
            (checked / name).write_text(text)


def test_a_folder_of_ours_is_written_again(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    write(folder, source, a="1", b="2")
    write(folder, source, a="3", b="2")
    assert (folder / "a").read_text() == "3"
    (folder / ".git").mkdir()
    write(folder, source, a="4", b="2")


def test_an_empty_folder_may_be_there(tmp_path: Path, source: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", source, a="1")
    assert (tmp_path / "out" / "a").read_text() == "1"


def test_what_others_put_or_changed_in_a_folder_stays(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    write(folder, source, a="1")
    (folder / "README.md").write_text("mine")
    with pytest.raises(MidnightError, match=r"README\.md: was changed or put there since"):
        write(folder, source, a="2")
    (folder / "README.md").unlink()
    (folder / "a").write_text("mended by hand")
    with pytest.raises(MidnightError, match="a: was changed or put there since"):
        write(folder, source, a="2")
    assert (folder / "a").read_text() == "mended by hand"
    write(folder, source, a="2", force=True)
    assert (folder / "a").read_text() == "2"


@pytest.mark.parametrize("mark", [None, "{}", "no json", '{"command": "another", "sha256": {}}', "[1]"])
def test_a_folder_of_others_stays(tmp_path: Path, source: Path, mark: str | None) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a").write_text("mine")
    if mark:
        (folder / FOLDER_MARK).write_text(mark)
    with pytest.raises(MidnightError, match="is not empty, and `us` did not write it"):
        write(folder, source, a="2")
    assert (folder / "a").read_text() == "mine"


@pytest.mark.parametrize("link", [symlink, hard_link])
@pytest.mark.parametrize("force", [False, True])
def test_a_folder_with_an_input_in_it_stays(tmp_path: Path, source: Path, link: Link, force: bool) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    link(folder / "weights", source)
    with pytest.raises(MidnightError, match="weights: is read by this command"):
        write(folder, source, force=force, weights="2")
    assert source.read_bytes() == b"slide"


def test_an_input_folder_is_no_output(tmp_path: Path, source: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "link"):
        with (
            pytest.raises(MidnightError, match="is read by this command"),
            signed_folder(folder, [tmp_path], "us", True),
        ):
            pass
    with pytest.raises(MidnightError, match="is a file; name a folder"), signed_folder(source, [], "us", True):
        pass


def test_a_signed_png_is_known_and_still_a_picture(tmp_path: Path) -> None:
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    data = cv2.imencode(".png", picture)[1].tobytes()
    (tmp_path / "ours.png").write_bytes(sign_png(data, "midnight x"))
    (tmp_path / "plain.png").write_bytes(data)
    assert png_by("midnight x")(tmp_path / "ours.png")
    assert not png_by("midnight y")(tmp_path / "ours.png")
    assert not png_by("midnight x")(tmp_path / "plain.png")
    assert not png_by("midnight x")(tmp_path / "gone.png")
    assert np.array_equal(cv2.imread(str(tmp_path / "ours.png")), picture)
