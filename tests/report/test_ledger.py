from dataclasses import replace
from pathlib import Path

import pytest

from midnight.errors import MidnightError
from midnight.report.ledger import read_ledger
from midnight.slides.record import Refused
from tests.report.example import NASTY, write_manifest_of, write_slides, write_tissue


def test_slides_and_tissue_are_joined_per_cohort(tmp_path: Path) -> None:
    ledger = read_ledger([write_slides(tmp_path / "slides")], [write_tissue(tmp_path / "tissue")])
    (cohort,) = ledger.cohorts
    assert (cohort.cohort, cohort.total, cohort.ok, cohort.quarantined) == ("demo", 8, 5, 3)
    assert cohort.tissue_mm2 == pytest.approx(sum(4.2 + i for i in range(5)))
    assert cohort.size == sum(40_000_000 + i for i in range(6)) + 2 * 4096
    assert [(q.slide_id, q.stage) for q in ledger.quarantined] == [
        ("s05", "tissue"),
        ("s06", "fetching"),
        ("s07", "fetching"),
    ]
    assert ledger.quarantined[1].reason == NASTY


def test_a_slide_lost_in_fetching_keeps_that_reason_when_tissue_lists_it_too(tmp_path: Path) -> None:
    tissue = write_tissue(tmp_path / "tissue")
    slides = write_slides(tmp_path / "slides", damaged=("s00",))
    ledger = read_ledger([slides], [tissue])
    assert [q.reason for q in ledger.quarantined if q.slide_id == "s00"] == [NASTY]
    assert ledger.cohorts[0].total == 8


def test_nothing_read_is_an_empty_ledger() -> None:
    ledger = read_ledger([], [])
    assert (ledger.ok, ledger.size, ledger.tissue_mm2, ledger.quarantined) == (0, 0, 0.0, ())


def test_a_broken_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "0000.tsv"
    path.write_text("slide\tstatus\nx\tok\n")
    with pytest.raises(MidnightError, match=r"0000\.tsv"):
        read_ledger([path], [])


def test_a_slide_lost_while_training_is_counted(tmp_path: Path) -> None:
    lines = ["s00\tdemo\t/s00.svs\tno such file", "s05\tdemo\t/s05.svs\tlater", "else\tdemo\t/e.svs\tnot in the ledger"]
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "quarantined.tsv").write_text("\n".join(lines) + "\n")
    tables = [write_slides(tmp_path / "slides")], [write_tissue(tmp_path / "tissue")]
    ledger = read_ledger(*tables, [tmp_path / "base", tmp_path / "run-without"])
    before = read_ledger(*tables)
    assert ledger.cohorts[0].ok == before.cohorts[0].ok - 1
    assert ledger.size == before.size
    lost = {q.slide_id: (q.stage, q.reason) for q in ledger.quarantined}
    assert lost["s00"] == ("training base", "no such file")
    assert lost["s05"][0] == "tissue"
    assert len(lost) == len(before.quarantined) + 1


def test_a_slide_that_is_damaged_in_parts_is_used_and_named_once(tmp_path: Path) -> None:
    tables = [write_slides(tmp_path / "slides")], [write_tissue(tmp_path / "tissue")]
    for run in ("base", "next"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "damaged.tsv").write_text("s00\tdemo\t/s00.svs\t1 of 32\ns05\tdemo\t/s05.svs\tunused\n")
    ledger = read_ledger(*tables, [tmp_path / "base", tmp_path / "next"])
    assert replace(ledger, damaged=()) == read_ledger(*tables)
    assert [(q.slide_id, q.stage, q.reason) for q in ledger.damaged] == [("s00", "training base", "1 of 32")]


def test_slides_that_are_unavailable_for_now_are_counted_apart(tmp_path: Path) -> None:
    slides, tissue = write_slides(tmp_path / "slides", refused=("s03",)), write_tissue(tmp_path / "tissue")
    ledger = read_ledger([slides], [tissue])
    assert (ledger.unavailable, ledger.cohorts[0].unavailable, ledger.cohorts[0].quarantined) == (1, 1, 4)
    assert {q.reason for q in ledger.quarantined if q.slide_id == "s03"} == {"unavailable for now: HTTP 403"}
    assert read_ledger([write_slides(tmp_path / "slides")], [tissue]).unavailable == 0


def test_what_was_refused_at_pinning_is_named_and_in_no_count(tmp_path: Path) -> None:
    rows = [Refused("'C:\\a: b.vsi'", "no format: convert it"), Refused("'C:\\a: b.vsi'", NASTY)]
    slides = [write_slides(tmp_path / "slides")]
    ledger = read_ledger(slides, [], manifests=[write_manifest_of(tmp_path / "cohorts", rows)])
    assert [(q.cohort, q.slide_id, q.stage, q.reason) for q in ledger.refused] == [
        ("demo", row.name, "pinning", row.reason) for row in rows
    ]
    assert replace(ledger, refused=()) == read_ledger(slides, [])
