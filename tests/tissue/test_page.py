import base64
import re
from pathlib import Path

import numpy as np
import pytest

from midnight.tissue.index import TissueRecord, join_shards, write_records
from midnight.tissue.page import OUTLINE, choose, decode, outlined, write_page
from tests.tissue.small_slides import make_index, make_record, tissue_image, write_slide


def test_the_page_shows_slides_and_reasons(tmp_path: Path) -> None:
    image = tissue_image(1200, 1600, [(160, 320, 800, 960)])
    paths = [write_slide(tmp_path / f"{name}.svs", image, mpp) for name, mpp in (("good", 0.5), ("blind", None))]
    write_page(make_index(tmp_path, [*paths, tmp_path / "gone.svs"]), tmp_path / "qc.html", "my cohort")
    page = (tmp_path / "qc.html").read_text()
    assert "Tissue of my cohort" in page
    assert page.count("<img") == 1
    assert "no such file" in page
    assert "no resolution" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    source = re.search(r"data:image/jpeg;base64,([^\"]+)", page)
    assert source is not None
    assert decode(base64.b64decode(source[1])).shape == (270, 360, 3)


def test_names_and_reasons_are_escaped(tmp_path: Path) -> None:
    record = TissueRecord("<script>alert(1)</script>", "", status="quarantined", reason="<b>bad</b>")
    write_records([record], tmp_path / "index.parquet")
    write_page(tmp_path / "index.parquet", tmp_path / "qc.html", "<i>cohort</i>")
    page = (tmp_path / "qc.html").read_text()
    assert "<script" not in page
    assert "<b>bad" not in page
    assert "<i>cohort" not in page
    assert "&lt;b&gt;bad" in page


def test_a_cohort_without_slides_has_a_page(tmp_path: Path) -> None:
    join_shards([], tmp_path / "index.parquet")
    write_page(tmp_path / "index.parquet", tmp_path / "qc.html", "none")
    assert "slides in use" in (tmp_path / "qc.html").read_text()


@pytest.mark.parametrize("most", [1, 5, 40])
def test_the_choice_spans_all_areas(most: int) -> None:
    rng = np.random.default_rng(0)
    records = [make_record(rng.random((20, 20)) < rng.random(), f"s{i}") for i in range(30)]
    areas = sorted(record.tissue_mm2 for record in records)
    chosen = [record.tissue_mm2 for record in choose(records, most)]
    assert len(chosen) == min(most, 30)
    assert chosen[0] == areas[0]
    assert chosen == sorted(chosen)
    assert most == 1 or chosen[-1] == areas[-1]


def test_outlines_follow_the_mask() -> None:
    mask = np.zeros((50, 100), bool)
    mask[10:40, 20:80] = True
    drawn = outlined(np.full((100, 200, 3), 255, np.uint8), mask)
    assert drawn.shape == (180, 360, 3)
    green = (np.abs(drawn.astype(int) - OUTLINE).max(axis=2) < 40).nonzero()
    assert green[0].min() == pytest.approx(36, abs=3)
    assert green[1].max() == pytest.approx(288, abs=3)
    assert (drawn[90, 180] == 255).all()
