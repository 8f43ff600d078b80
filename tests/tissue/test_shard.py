import errno
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from midnight.config import Tissue
from midnight.errors import MidnightError
from midnight.slides.quarantine import quarantined, read_statuses, usable, write_statuses
from midnight.tissue import openslides, shard
from midnight.tissue.index import TissueRecord, read_index
from midnight.tissue.openslides import is_cut_short
from midnight.tissue.shard import SlideRow, read_slides, segment_shard, segment_slide
from tests.patience import Time
from tests.tissue.small_slides import tissue_image, write_slide, write_table

CONFIG = Tissue(workers=2)


def records(folder: Path, rows: list[dict[str, object]], config: Tissue = CONFIG) -> dict[str, TissueRecord]:
    segment_shard(write_table(folder / "slides.tsv", rows), config, folder / "out.parquet")
    return {record.slide_id: record for record in read_index(folder / "out.parquet")}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    return write_slide(folder / "good.svs", tissue_image(1200, 1600, [(160, 320, 800, 960)]), 0.5, 20)


def test_a_good_slide(tmp_path: Path, good: Path) -> None:
    record = records(tmp_path, [{"slide_id": "good", "path": good}])["good"]
    assert record.ok
    assert (record.vendor, record.mpp, record.mpp_source) == ("aperio", 0.5, "slide")
    assert (record.width, record.height) == (1600, 1200)
    assert (record.level_widths, record.level_heights) == ((1600, 400), (1200, 300))
    assert record.level_downsamples == (1.0, 4.0)
    assert record.mpps == (0.5, 1.0, 2.0)
    assert record.tissue_mm2 == pytest.approx(800 * 960 * 0.25 / 1e6, rel=0.05)
    mask = record.mask()
    assert mask.shape == (record.mask_height, record.mask_width) == (75, 100)
    assert mask[15:55, 25:75].all()
    assert not mask[:8].any()


def test_bad_slides_are_quarantined_with_their_reasons(tmp_path: Path, good: Path) -> None:
    image = tissue_image(1200, 1600, [(160, 320, 800, 960)])
    cut = tmp_path / "cut.svs"
    cut.write_bytes(good.read_bytes()[:5000])
    rows = [
        {"slide_id": "before", "path": "", "status": "quarantined", "reason": "md5 differs"},
        {"slide_id": "gone", "path": tmp_path / "gone.svs"},
        {"slide_id": "cut", "path": cut},
        {"slide_id": "small", "path": write_slide(tmp_path / "small.svs", image[:100, :900], 0.5)},
        {"slide_id": "blind", "path": write_slide(tmp_path / "blind.svs", image, None)},
        {"slide_id": "empty", "path": write_slide(tmp_path / "empty.svs", np.full_like(image, 244), 0.5)},
        {"slide_id": "good", "path": good},
    ]
    found = records(tmp_path, rows)
    assert {name for name, record in found.items() if record.ok} == {"good"}
    assert found["before"].reason == "md5 differs"
    assert found["gone"].reason == "no such file"
    assert found["small"].reason == "too small for one tile: 900 × 100 px at 0.5 µm/px"
    assert found["blind"].reason.startswith("no resolution")
    assert found["empty"].reason == "no tissue found"
    assert found["empty"].thumbnail()
    assert found["cut"].reason


def test_the_manifests_mpp_serves_a_slide_without_one(tmp_path: Path) -> None:
    image = tissue_image(1200, 1600, [(160, 320, 800, 960)])
    path = write_slide(tmp_path / "blind.svs", image, None)
    record = records(tmp_path, [{"slide_id": "blind", "path": path, "mpp": 0.46}])["blind"]
    assert (record.ok, record.mpp, record.mpp_source) == (True, 0.46, "manifest")


def test_the_manifests_mpp_comes_before_the_slides_with_a_warning(
    tmp_path: Path, good: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = records(tmp_path, [{"slide_id": "good", "path": good, "mpp": 0.25}])["good"]
    assert (record.ok, record.mpp, record.mpp_source) == (True, 0.25, "manifest; the slide states 0.5 µm/px")
    assert record.tissue_mm2 == pytest.approx(800 * 960 * 0.0625 / 1e6, rel=0.05)
    assert "slide good: taken at 0.25 µm/px, as the manifest says; the slide itself states 0.5 µm/px" in caplog.text
    assert records(tmp_path, [{"slide_id": "good", "path": good, "mpp": 0.5}])["good"].mpp_source == "manifest"


def test_a_coarse_slide_is_not_called_small(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "coarse.svs", tissue_image(1200, 1600, [(160, 320, 800, 960)]), 2.6)
    reason = records(tmp_path, [{"slide_id": "coarse", "path": path}])["coarse"].reason
    assert reason.startswith("coarser than all tiles: 2.6 µm/px from the slide, tiles have at most 2")
    assert reason.endswith("give mpp in a CSV: path,mpp")


def test_another_stain_is_not_called_glass(tmp_path: Path) -> None:
    image = tissue_image(1200, 1600, [])
    image[160:960, 320:1280] = (150, 110, 70)
    found = records(tmp_path, [{"slide_id": "dab", "path": write_slide(tmp_path / "dab.svs", image, 0.5)}])["dab"]
    assert found.reason == (
        "no tissue found by hsv, 0.19 mm² by otsu: if it is not stained with H&E, set tissue.segmenter: otsu"
    )
    otsu = Tissue(segmenter="otsu", workers=1)
    assert records(tmp_path, [{"slide_id": "dab", "path": tmp_path / "dab.svs"}], otsu)["dab"].ok


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (bytes(4096), "begins with zeros: an unfinished copy or download"),
        (b"<!DOCTYPE html><html>log in</html>", "not a slide but an HTML or XML page"),
        (b"a plain text", "not in a format that OpenSlide reads"),
    ],
)
def test_what_is_no_slide_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.svs").write_bytes(content)
    assert reason in records(tmp_path, [{"slide_id": "x", "path": tmp_path / "x.svs"}])["x"].reason


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.4])
@pytest.mark.parametrize("big", [False, True])
def test_a_slide_that_is_cut_short_is_called_so(tmp_path: Path, share: float, big: bool) -> None:
    path = tmp_path / "cut.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    with tifffile.TiffWriter(path, bigtiff=big) as file:
        for _ in range(2):
            file.write(pixels, tile=(256, 256), photometric="rgb", metadata=None)
    data = path.read_bytes()
    with path.open("rb") as opened:
        assert not is_cut_short(opened, len(data))
    path.write_bytes(data[: max(16, int(len(data) * share))])
    reason = records(tmp_path, [{"slide_id": "cut", "path": path}])["cut"].reason
    assert "cut short" in reason and "copy or download it again" in reason


def test_a_mirax_file_without_its_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "m.mrxs").write_bytes(b"\xff\xd8\xff" * 20)
    reason = records(tmp_path, [{"slide_id": "m", "path": tmp_path / "m.mrxs"}])["m"].reason
    assert reason == "the folder m of its image data is not beside it"


def test_a_record_knows_its_file(tmp_path: Path, good: Path) -> None:
    status = good.stat()
    record = records(tmp_path, [{"slide_id": "good", "path": good}])["good"]
    assert (record.file_size, record.modified) == (status.st_size, int(status.st_mtime))
    table = tmp_path / "slides.tsv"
    table.write_text("# source: gdc\n" + table.read_text())
    segment_shard(table, CONFIG, tmp_path / "out.parquet")
    record = read_index(tmp_path / "out.parquet")[0]
    assert (record.file_size, record.modified) == (status.st_size, 0), "checked by its md5: the time may change"


def test_a_truncated_slide_that_opens_is_quarantined_when_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    path = write_slide(tmp_path / "torn.svs", noise, 0.5, downsamples=())
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    record = records(tmp_path, [{"slide_id": "torn", "path": path}])["torn"]
    assert record.status == "quarantined"
    assert "can't be read at" in record.reason


def test_an_unforeseen_failure_quarantines_one_slide(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr("midnight.tissue.shard.segment", fail)
    record = records(tmp_path, [{"slide_id": "good", "path": good}])["good"]
    assert (record.status, record.reason) == ("quarantined", "ZeroDivisionError: odd")


def test_the_segmenter_is_configurable(tmp_path: Path, good: Path) -> None:
    found = records(tmp_path, [{"slide_id": "good", "path": good}], Tissue(segmenter="otsu", workers=1, mpp=16))
    assert found["good"].mask_mpp == pytest.approx(16)
    assert found["good"].tissue_mm2 == pytest.approx(800 * 960 * 0.25 / 1e6, rel=0.07)


def test_a_table_that_is_none_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(MidnightError, match=r"gone\.tsv: can't be read"):
        read_slides(tmp_path / "gone.tsv")
    (tmp_path / "odd.tsv").write_text("slide_id\tpath\nx\ty\n")
    with pytest.raises(MidnightError, match=r"odd\.tsv: column status, reason is missing"):
        read_slides(tmp_path / "odd.tsv")
    table = write_table(tmp_path / "mpp.tsv", [{"slide_id": "x", "path": "y", "mpp": "fine"}])
    with pytest.raises(MidnightError, match="slide x: mpp is 'fine'"):
        read_slides(table)


def test_real_slides(tmp_path: Path, real_data: Path) -> None:
    rows = [{"slide_id": path.stem, "path": path} for path in sorted((real_data / "wsi").iterdir())]
    found = records(tmp_path, rows)
    assert {name for name, record in found.items() if record.ok} == {"cmu-1-small-region"}
    assert found["cmu-1-small-region"].mpps == (0.5, 1.0, 2.0)
    assert 0.5 < found["cmu-1-small-region"].tissue_mm2 < 0.9
    assert found["tcga-cr-7395-01a-01-ts1"].reason.startswith("no resolution")
    assert found["openslide_small"].reason == "too small for one tile: 16 × 16 px at 0.499 µm/px"
    assert found["small_dicom"].reason == "Couldn't get image flavor"


def test_a_real_slide_without_resolution_takes_the_manifests(tmp_path: Path, real_data: Path) -> None:
    path = real_data / "wsi" / "tcga-cr-7395-01a-01-ts1.svs"
    record = records(tmp_path, [{"slide_id": "tcga", "path": path, "mpp": 0.5}])["tcga"]
    assert record.ok
    assert 1.5 < record.tissue_mm2 < 4.0


def test_a_slide_that_is_away_for_the_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_slide(tmp_path / "slide.svs", tissue_image(600, 700, [(50, 50, 500, 500)]), 0.5)
    left = iter(range(3))

    def stale(where: str) -> openslide.OpenSlide:
        if next(left, None) is None:
            return openslides.open_slide(where)
        raise openslides.unusable(OSError(errno.ESTALE, "Stale file handle"))

    monkeypatch.setattr(shard, "open_slide", stale)
    time, row = Time(), SlideRow("slide", str(path), "ok", "", None)
    assert segment_slide(row, Tissue(), time.patience(600, [str(path)])).ok
    assert 0 < time.now < 1
    assert "stale file handle; waiting for it" in caplog.text


def test_a_folder_that_stays_away_is_an_error_and_no_result(tmp_path: Path) -> None:
    paths = [str(tmp_path / "away" / f"{number}.svs") for number in range(3)]
    with pytest.raises(MidnightError, match="as for 3 of 3 files that were tried"):
        segment_slide(SlideRow("0", paths[0], "ok", "", None), Tissue(), Time().patience(600, paths))


def test_a_quote_in_a_name_or_a_reason_is_a_quote(tmp_path: Path) -> None:
    """As text in quotes it would run on over the next slides."""
    statuses = [
        usable('5" core', "/slides/5.svs", 1, mpp=0.25),
        quarantined("b", 'no such file: "b.svs'),
        usable("c", "/slides/c.svs", 1),
    ]
    write_statuses(tmp_path / "0001.tsv", statuses, {"source": "gdc"})
    rows = read_slides(tmp_path / "0001.tsv")
    assert [(row.slide_id, row.status, row.reason, row.mpp, row.verified) for row in rows] == [
        (one.slide_id, one.status, one.reason, one.mpp, True) for one in read_statuses(tmp_path / "0001.tsv")
    ]
    assert len(rows) == 3
