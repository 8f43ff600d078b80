from pathlib import Path

import pytest

from midnight.errors import MidnightError
from midnight.mil.bags import magnification
from midnight.mil.command import join_tables
from midnight.mil.ledger import Row, read_table, summary, write_table

ROWS = [
    Row("b", "/x/b.svs", "ok", 1200, 3, 0.2525, 12.5),
    Row("c", "/x/c.svs", "failed", reason="no tissue\tfound\nat all"),
    Row("", "/x/d.vsi", "left out", reason="OpenSlide does not read .vsi"),
]


def test_what_is_written_is_read_again_on_one_line_each(tmp_path: Path) -> None:
    write_table(tmp_path / "slides.tsv", ROWS)
    assert read_table(tmp_path / "slides.tsv") == [
        ROWS[0],
        Row("c", "/x/c.svs", "failed", reason="no tissue found at all"),
        ROWS[2],
    ]


def test_the_summary_counts_what_there_is() -> None:
    assert summary(ROWS) == "1 slide with 1,200 tiles (3 damaged ones are left out); 1 failed; 1 left out"
    assert summary(ROWS[:1] * 2) == "2 slides with 2,400 tiles (6 damaged ones are left out)"


def test_tables_are_joined_by_slide(tmp_path: Path) -> None:
    write_table(tmp_path / "0001.tsv", ROWS[:2])
    write_table(tmp_path / "0000.tsv", [Row("a", "/x/a.svs", "ok", 5), Row("bb", "/x/bb.svs", "ok", 6)])
    join_tables([tmp_path / "0000.tsv", tmp_path / "0001.tsv"], tmp_path / "slides.tsv")
    assert [row.slide_id for row in read_table(tmp_path / "slides.tsv")] == ["a", "b", "bb", "c"]


@pytest.mark.parametrize("text", ["", "slide_id\tpath\n", "nothing"])
def test_another_table_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "slides.tsv").write_text(text)
    with pytest.raises(MidnightError, match="no table of embedded slides"):
        read_table(tmp_path / "slides.tsv")


@pytest.mark.parametrize(
    ("mpp", "power"), [(0.1242, 80), (0.25, 40), (0.2525, 40), (0.4990, 20), (0.5, 20), (1.0, 10), (2.0, 5)]
)
def test_nominal_magnifications_are_those_of_tridents_limits(mpp: float, power: int) -> None:
    assert magnification(mpp) == power
