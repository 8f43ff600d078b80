import os
from pathlib import Path
from typing import Any

import pytest

from midnight.config import Gdc
from midnight.errors import ConfigError
from midnight.slides.local import find_slides, look_from_outside
from midnight.slides.manifest import read_header, read_manifest, read_refused
from midnight.slides.quarantine import quarantined, read_statuses, usable, write_statuses


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "my slides"
    for name in ("a.svs", "B.NDPI", "sub/a.svs", "sub/deep/c 1.mrxs", "sub/d.tiff"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)
    for name in ("notes.txt", ".hidden.svs", "e.svs.partial", ".cache/f.svs"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (root / "sub" / "loop").symlink_to(root)
    return root


def test_folder_is_walked(folder: Path, fetcher: Any) -> None:
    fetcher.pin(Gdc(), source="local", path=str(folder))
    slides = read_manifest(fetcher.manifest)
    names = {slide.file_name for slide in slides}
    assert names == {"a.svs", "B.NDPI", "c 1.mrxs", "d.tiff"} and len(slides) == 5
    assert [slide.slide_id for slide in slides] == sorted(slide.slide_id for slide in slides)
    assert sum(slide.slide_id.startswith("a_") for slide in slides) == 2
    assert {slide.size for slide in slides} == {10} and {slide.md5 for slide in slides} == {""}
    assert read_header(fetcher.manifest)["source"] == "local"
    statuses = fetcher.fetch(Gdc(), source="local")
    assert all(status.ok and Path(status.path).is_file() for status in statuses)
    assert str(folder / "sub" / "deep" / "c 1.mrxs") in {status.path for status in statuses}
    assert not fetcher.raw.exists()


def test_ids_do_not_depend_on_where_the_folder_is(folder: Path, tmp_path: Path) -> None:
    before = [(slide.slide_id, slide.file_id) for slide in find_slides(str(folder))[0]]
    folder.rename(tmp_path / "moved")
    assert [(slide.slide_id, slide.file_id) for slide in find_slides(str(tmp_path / "moved"))[0]] == before


def test_csv(folder: Path, fetcher: Any, tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text(
        "\ufeffpath,slide_id,mpp,case_id\n"
        f"{folder / 'a.svs'},first,0.25,P1\n"
        "my slides/B.NDPI,,,P2\n"
        "missing.svs,,0.5,\n"
        "my slides/B.NDPI,,,P2\n",
        encoding="utf-8",
    )
    fetcher.pin(Gdc(), source="local", path=str(table))
    slides = {slide.slide_id: slide for slide in read_manifest(fetcher.manifest)}
    assert set(slides) == {"B", "first", "missing"}
    assert slides["first"].extra.pop("modified").startswith("20")
    assert slides["first"].extra == {"path": str(folder / "a.svs"), "mpp": 0.25}
    assert slides["B"].case_id == "P2" and "mpp" not in slides["B"].extra
    header = read_header(fetcher.manifest)
    assert header["refused"] == "1"
    assert [row.reason for row in read_refused(fetcher.manifest)] == ["it is listed twice"]
    statuses = {status.slide_id: status for status in fetcher.fetch(Gdc(), source="local")}
    assert statuses["first"].ok and statuses["B"].ok
    assert statuses["first"].mpp == 0.25 and statuses["B"].mpp is None
    assert "not there" in statuses["missing"].reason


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file\nx\n", "needs a column 'path'"),
        ("path,mpp\na.svs,-1\n", "line 2, column mpp: '-1'"),
        ("path,mpp\na.svs,nan\n", "column mpp"),
        ("path,mpp\na.svs,wide\n", "column mpp"),
        ("path,mpp\n ,1\n", "line 2, column path: is empty"),
        ("path,slide_id\na.svs,a/b\n", "column slide_id: 'a/b'"),
        ("path,slide_id\na.svs,x\nb.svs,x\n", "'x' occurs twice"),
        ("path\n", "no slides there"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        find_slides(str(path))
    assert says in str(caught.value) and str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_folder_and_no_slides(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder or CSV"):
        find_slides(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="no slides there"):
        find_slides(str(tmp_path))


def test_names_that_no_table_can_hold_are_refused(tmp_path: Path) -> None:
    (tmp_path / "good.svs").write_bytes(b"x")
    (tmp_path / "tab\there.svs").write_bytes(b"x")
    (tmp_path / "line\nbreak.svs").write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/latin-\xe4.svs")).write_bytes(b"x")
    slides, refused = find_slides(str(tmp_path))
    assert [slide.slide_id for slide in slides] == ["good"]
    assert len(refused) == 3 and all("rename" in row.reason for row in refused)


def test_what_vanished_or_is_empty_is_quarantined(folder: Path, fetcher: Any) -> None:
    fetcher.pin(Gdc(), source="local", path=str(folder))
    (folder / "B.NDPI").unlink()
    (folder / "sub" / "d.tiff").write_bytes(b"")
    (folder / "a.svs").unlink()
    (folder / "a.svs").mkdir()
    reasons = sorted(status.reason.rsplit(": ", 1)[-1] for status in fetcher.fetch(Gdc(), source="local"))
    assert reasons == ["", "", "is empty", "is not a file", "the file is not there (any more)"]


def test_real_slides(real_data: Path) -> None:
    slides, refused = find_slides(str(real_data / "wsi"))
    assert {slide.file_name for slide in slides} >= {"cmu-1-small-region.svs", "small_dicom.dcm"}
    assert refused == []


def test_status_table_round_trip(tmp_path: Path) -> None:
    rows = [usable("a", tmp_path / "a # b.svs", 5, 0.1234, 0.25), quarantined("b", "two\nlines\tand a tab", 3)]
    write_statuses(tmp_path / "t.tsv", rows, {"shard": "0000"})
    assert read_statuses(tmp_path / "t.tsv") == rows
    assert rows[1].reason == "two lines and a tab" and not rows[1].ok
    (tmp_path / "t.tsv").write_text("slide_id\na\n")
    with pytest.raises(ConfigError, match="columns are slide_id"):
        read_statuses(tmp_path / "t.tsv")


def test_a_path_may_name_a_single_slide(folder: Path, tmp_path: Path) -> None:
    slides, refused = find_slides(str(folder / "sub" / "d.tiff"))
    assert [(slide.slide_id, slide.extra["path"], slide.size) for slide in slides] == [
        ("d", str(folder / "sub" / "d.tiff"), 10)
    ]
    assert refused == []
    before = look_from_outside(str(folder / "sub" / "d.tiff"))
    (folder / "sub" / "d.tiff").write_bytes(b"y" * 11)
    assert before and look_from_outside(str(folder / "sub" / "d.tiff")) not in ("", before)
    assert look_from_outside(str(tmp_path / "none.svs")) == ""
