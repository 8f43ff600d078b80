import os
from collections.abc import Callable
from pathlib import Path

import pytest

from midnight.config import Cohort, Gdc
from midnight.slides.files import files_of
from midnight.slides.local import find_slides, look_from_outside
from midnight.slides.manifest import read_header, read_manifest
from midnight.slides.pin import local_look, pin_manifest
from midnight.slides.sharding import digest

Change = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "slides"
    for name in ("a.svs", "sub/b.tiff", "m.mrxs", "m/Data0000.dat", "m/Data0001.dat", "notes.txt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return root


def rewrite(path: Path, size: int = 10, time: int = 1_700_000_100) -> None:
    path.write_bytes(b"y" * size)
    os.utime(path, (time, time))


CHANGES: dict[str, Change] = {
    "a new slide": lambda root: (root / "sub" / "c.ndpi").write_bytes(b"x"),
    "a slide removed": lambda root: (root / "a.svs").unlink(),
    "a slide replaced by another of its size": lambda root: rewrite(root / "a.svs"),
    "a slide repaired": lambda root: rewrite(root / "sub" / "b.tiff", 11, 1_700_000_000),
    "a part of a slide repaired": lambda root: rewrite(root / "m" / "Data0001.dat", 11),
    "a slide renamed": lambda root: (root / "a.svs").rename(root / "z.svs"),
    "a slide made readable": lambda root: (root / "a.svs").chmod(0o600),
}
NO_CHANGES: dict[str, Change] = {
    "nothing": lambda root: None,
    "other files": lambda root: (root / "notes.txt").write_text("more"),
    "a hidden file": lambda root: (root / ".sync.svs").write_bytes(b"x"),
    "the parts of a second that a file system drops": lambda root: os.utime(
        root / "a.svs", ns=(0, 1_700_000_000_123_456_789)
    ),
}


@pytest.mark.parametrize("name", [*CHANGES, *NO_CHANGES])
def test_the_look_changes_with_the_slides_alone(folder: Path, name: str) -> None:
    before = look_from_outside(str(folder))
    {**CHANGES, **NO_CHANGES}[name](folder)
    assert (look_from_outside(str(folder)) != before) == (name in CHANGES)


@pytest.mark.parametrize("name", [name for name in CHANGES if "readable" not in name])
def test_what_changes_the_look_changes_a_row(folder: Path, name: str) -> None:
    before = find_slides(str(folder))[0]
    CHANGES[name](folder)
    assert find_slides(str(folder))[0] != before


def test_a_row_changes_with_its_own_slide_alone(folder: Path, tmp_path: Path) -> None:
    def pinned() -> list[str]:
        pin_manifest("c", Cohort(source="local", path=str(folder)), Gdc(), tmp_path / "m.tsv")
        slides = read_manifest(tmp_path / "m.tsv")
        assert [slide.slide_id for slide in slides] == sorted(slide.slide_id for slide in slides)
        return [digest([slide]) for slide in slides]

    before = pinned()
    assert pinned() == before
    rewrite(folder / "a.svs")
    assert [new != old for new, old in zip(pinned(), before, strict=True)] == [True, False, False]


def test_a_list_looks_at_the_slides_that_it_names(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text("path\nslides/a.svs\nslides/m.mrxs\ngone.svs\n")
    before = look_from_outside(str(table))
    rewrite(folder / "sub" / "b.tiff")
    assert look_from_outside(str(table)) == before != ""
    rewrite(folder / "m" / "Data0000.dat")
    assert look_from_outside(str(table)) != before


def test_where_the_slides_are_away_it_is_what_it_was(folder: Path, tmp_path: Path) -> None:
    cohort, manifest = Cohort(source="local", path=str(folder)), tmp_path / "m.tsv"
    look = local_look(cohort, manifest)
    pin_manifest("c", cohort, Gdc(), manifest, look)
    assert local_look(cohort, manifest) == look
    folder.rename(tmp_path / "elsewhere")
    assert local_look(cohort, manifest) == look
    folder.mkdir()
    assert local_look(cohort, manifest) == look, "an empty mount point"
    assert local_look(cohort, tmp_path / "none.tsv") == ""
    assert "elsewhere" not in str(read_header(manifest))


def test_other_cohorts_have_no_look(tmp_path: Path) -> None:
    assert local_look(Cohort(source="gdc"), tmp_path / "m.tsv") == ""


def test_links_that_lead_back_are_walked_once(folder: Path) -> None:
    before = look_from_outside(str(folder))
    (folder / "sub" / "loop").symlink_to(folder)
    assert look_from_outside(str(folder)) == before
    assert len(find_slides(str(folder))[0]) == 3


def test_the_files_of_a_slide(folder: Path) -> None:
    parts = ["m.mrxs", "m/Data0000.dat", "m/Data0001.dat"]
    assert [path.relative_to(folder).as_posix() for path in files_of(folder / "m.mrxs")] == parts
    for name in ("v.vms", "v(0,0).jpg", "v.opt", "w.jpg"):
        (folder / name).touch()
    assert [path.name for path in files_of(folder / "v.vms")] == ["v.vms", "v(0,0).jpg", "v.opt"]
    assert files_of(folder / "a.svs") == [folder / "a.svs"]


def test_a_manifest_says_when_a_slide_was_modified(folder: Path, tmp_path: Path) -> None:
    pin_manifest("c", Cohort(source="local", path=str(folder)), Gdc(), tmp_path / "m.tsv")
    extra = {slide.slide_id: slide.extra for slide in read_manifest(tmp_path / "m.tsv")}
    assert extra["a"] == {"path": str(folder / "a.svs"), "modified": "2023-11-14T22:13:20Z"}
    assert (extra["m"]["files"], extra["m"]["bytes"]) == (3, 30)


def test_files_that_openslide_does_not_read_are_left_out_by_name(folder: Path, tmp_path: Path) -> None:
    for name in ("x.vsi", "y.QPTIFF", "sub/z.isyntax"):
        (folder / name).touch()
    slides, refused = find_slides(str(folder))
    assert len(slides) == 3
    assert sorted(Path(row.name.strip("'")).name for row in refused) == ["x.vsi", "y.QPTIFF", "z.isyntax"]
    assert all("OpenSlide does not read ." in row.reason and "convert it" in row.reason for row in refused)
    pin_manifest("c", Cohort(source="local", path=str(folder)), Gdc(), tmp_path / "m.tsv")
    assert sum("convert it" in value for value in read_header(tmp_path / "m.tsv").values()) == 3
