from pathlib import Path

import numpy as np
import openslide
import pytest

from midnight.errors import ConfigError
from midnight.slides.dicom import SlideFile, read_slide_file
from midnight.slides.local import find_slides
from tests.slides.dicom_files import EXPLICIT, IMPLICIT, JPEG, write_dicom, write_series


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (512, 768, 3), dtype=np.uint8)


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", [JPEG, EXPLICIT, IMPLICIT])
def test_a_header_says_series_kind_and_size(tmp_path: Path, image: np.ndarray, syntax: str, undefined: bool) -> None:
    path = write_dicom(tmp_path / "x.dcm", image, "1.2.3", "LABEL", syntax=syntax, undefined=undefined)
    assert read_slide_file(path) == SlideFile("1.2.3", "LABEL", 768, 512)


@pytest.mark.parametrize(
    "content", [b"", b"x" * 1000, bytes(128) + b"DICM", bytes(128) + b"DICM" + b"\x08\0\x08\0CS\xff"]
)
def test_what_is_no_such_file_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.dcm").write_bytes(content)
    assert read_slide_file(tmp_path / "x.dcm") is None
    assert read_slide_file(tmp_path / "gone.dcm") is None


def test_cut_anywhere_it_is_read_or_none(tmp_path: Path, image: np.ndarray) -> None:
    data = write_dicom(tmp_path / "x.dcm", image[:128, :128], "1.2.3", undefined=True).read_bytes()
    for length in range(128, 1200, 7):
        (tmp_path / "cut.dcm").write_bytes(data[:length])
        found = read_slide_file(tmp_path / "cut.dcm")
        assert found is None or (found.series, found.kind) == ("1.2.3", "VOLUME")
        assert found is None or {found.width, found.height} <= {0, 128}


def test_a_series_is_one_slide_that_has_all_its_levels(tmp_path: Path, image: np.ndarray) -> None:
    for name, series in (("one", "1.2.3"), ("two", "1.2.4")):
        write_series(tmp_path / name, series, image)
    (tmp_path / "other.svs").write_bytes(b"x")
    slides, refused = find_slides(str(tmp_path))
    assert {Path(slide.extra["path"]).relative_to(tmp_path).as_posix() for slide in slides} == {
        "one/b-finest.dcm", "two/b-finest.dcm", "other.svs"
    }  # fmt: skip
    assert refused == []
    one = next(slide for slide in slides if "one" in slide.extra["path"])
    assert one.extra["files"] == 4
    with openslide.OpenSlide(one.extra["path"]) as opened:
        assert opened.level_dimensions == ((768, 512), (384, 256))
        assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert {"label", "macro"} <= set(opened.associated_images)


def test_two_series_in_one_folder_are_two_slides(tmp_path: Path, image: np.ndarray) -> None:
    write_dicom(tmp_path / "a.dcm", image, "1.2.3")
    write_dicom(tmp_path / "b.dcm", image, "1.2.4")
    assert [slide.slide_id for slide in find_slides(str(tmp_path))[0]] == ["a", "b"]


def test_a_label_without_its_slide_is_left_out_by_name(tmp_path: Path, image: np.ndarray) -> None:
    write_dicom(tmp_path / "label.dcm", image[:128, :128], "1.2.3", "LABEL")
    (tmp_path / "a.svs").write_bytes(b"x")
    slides, refused = find_slides(str(tmp_path))
    assert [slide.slide_id for slide in slides] == ["a"]
    assert [(Path(row.name.strip("'")).name, row.reason) for row in refused] == [
        ("label.dcm", "shows a DICOM label, and no level of its slide is here")
    ]
    (tmp_path / "a.svs").unlink()
    with pytest.raises(ConfigError, match=r"no slides there.*shows a DICOM label"):
        find_slides(str(tmp_path))


def test_other_dicom_files_stay_and_are_judged_when_opened(tmp_path: Path, image: np.ndarray) -> None:
    write_dicom(tmp_path / "ct.dcm", image, "1.2.3", sop_class="1.2.840.10008.5.1.4.1.1.2")
    (tmp_path / "no.dcm").write_bytes(b"x")
    assert len(find_slides(str(tmp_path))[0]) == 2


def test_a_csv_may_name_any_level_but_each_series_once(tmp_path: Path, image: np.ndarray) -> None:
    write_series(tmp_path, "1.2.3", image)
    table = tmp_path / "list.csv"
    table.write_text("path,mpp\na-coarse.dcm,0.5\nb-finest.dcm,\nlabel.dcm,\n")
    slides, refused = find_slides(str(table))
    assert [(slide.slide_id, slide.extra["mpp"]) for slide in slides] == [("a-coarse", 0.5)]
    assert [row.reason.split(" as ")[0] for row in refused] == [
        "is of the same DICOM series", "shows a DICOM label; list a level of the slide"
    ]  # fmt: skip
