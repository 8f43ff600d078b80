import errno
from pathlib import Path

import numpy as np
import openslide
import pytest

from midnight.config import Tissue
from midnight.errors import MidnightError
from midnight.tissue import openslides, shard
from midnight.tissue.index import TissueRecord, read_index
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
