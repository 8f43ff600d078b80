from dataclasses import replace
from pathlib import Path

import pytest

from midnight.errors import MidnightError
from midnight.report.columns import KEYS
from midnight.report.scores import Score, load_scores
from midnight.report.table_forms import TABLE_FILES, to_markdown, write_tables
from midnight.report.tables import build_further, build_tables, combine
from tests.report.example import write_scores


def score(model: str = "a", column: str = "bach", mean: float | None = 0.5, **changes: object) -> Score:
    plain = Score(model, model, 224, "cls_mean", column, column, "m", mean, 0.02, 0.01, 5, "paper", "real")
    return replace(plain, **changes)


def test_cells_ranks_and_reasons() -> None:
    table = build_tables([score("a"), score("b", mean=0.7), score("b", "crc", 0.9)], {"pc": "needs a download"})[0]
    assert [row.model for row in table.rows] == ["b", "a"]
    best, other = table.rows
    assert (best.cells["bach"].rank, other.cells["bach"].rank) == (1, 2)
    assert other.cells["crc"].reason == "no score for this model"
    assert best.cells["pc"].reason == "needs a download"
    assert best.cells["mhst"].reason == "not among the tasks of this run"


def test_a_lone_model_is_not_best_of_anything() -> None:
    assert build_tables([score()])[0].rows[0].cells["bach"].rank is None


def test_equal_to_the_shown_digits_is_equally_bold() -> None:
    rows = build_tables([score("a", mean=0.70049), score("b", mean=0.7001), score("c", mean=0.6)])[0].rows
    assert {row.model: row.cells["bach"].rank for row in rows} == {"a": 1, "b": 1, "c": 3}


def test_poolings_are_ranked_apart_and_stand_together() -> None:
    scores = [score("a", mean=0.9), score("a", mean=0.3, pooling="cls"), score("b", mean=0.5)]
    scores.append(score("b", mean=0.8, pooling="cls"))
    rows = build_tables(scores)[0].rows
    assert [(row.model, row.pooling) for row in rows] == [
        ("a", "cls_mean"),
        ("a", "cls"),
        ("b", "cls_mean"),
        ("b", "cls"),
    ]
    assert [row.cells["bach"].rank for row in rows] == [1, 2, 2, 1]
    assert rows[1].name == "a [CLS]"


def test_demo_and_real_and_protocols_never_share_a_table() -> None:
    scores = [score(), score(data="demo"), score("b", protocol="eva-default")]
    tables = build_tables(scores)
    assert [(table.data, table.protocol, len(table.rows)) for table in tables] == [
        ("real", "eva-default", 1),
        ("real", "paper", 1),
        ("demo", "paper", 1),
    ]


def test_hest_is_one_column_the_mean_of_its_tasks_with_their_spread() -> None:
    tasks = [
        score(column="hest", task=name, mean=mean, stdev=0.1, error=0.03)
        for name, mean in (("IDC", 0.4), ("COAD", 0.2))
    ]
    cell = combine(tasks)
    assert cell.value == pytest.approx(0.3)
    assert cell.error == pytest.approx(0.1)
    assert cell.standard_error == pytest.approx((0.03**2 * 2) ** 0.5 / 2)
    average = build_tables([*tasks, score()])[0].rows[0].average
    assert average is not None
    assert average.value == pytest.approx(0.4)
    assert average.label == "mean of 2 of 13, HEST of 2 of 9 tasks"


def test_all_columns_with_nine_hest_tasks_make_a_complete_average() -> None:
    scores = [score(column=key) for key in KEYS if key != "hest"]
    scores += [score(column="hest", task=f"T{i}") for i in range(9)]
    average = build_tables(scores)[0].rows[0].average
    assert average is not None and average.complete


def test_averages_over_different_columns_are_not_ranked() -> None:
    rows = build_tables([score("a"), score("a", "crc", 0.9), score("b", mean=0.8)])[0].rows
    assert [row.average_rank for row in rows] == [None, None]
    rows = build_tables([score("a"), score("b", mean=0.8)])[0].rows
    assert [row.average_rank for row in rows] == [1, 2]


def test_a_score_that_is_not_finite_is_a_dash_with_its_reason() -> None:
    cell = build_tables([score(mean=None), score("b")])[0].rows[1].cells["bach"]
    assert (cell.value, cell.reason) == (None, "the score is not a finite number")


def test_two_sizes_of_a_model_are_told_apart() -> None:
    rows = build_tables([score(), score(size=392, mean=0.6), score("b")])[0].rows
    assert [row.name for row in rows] == ["a/392", "a/224", "b"] or {row.name for row in rows} == {
        "a/392",
        "a/224",
        "b",
    }


def test_what_must_not_be_averaged_never_is() -> None:
    with pytest.raises(MidnightError, match="across protocol: eva-default, paper"):
        combine([score(), score(protocol="eva-default")])
    with pytest.raises(MidnightError, match="a task is there twice among bach, bach"):
        build_tables([score(), score()])


def test_scores_of_different_versions_are_named_below_their_table() -> None:
    old, new = {"versions": {"torch": "2.9"}}, {"versions": {"torch": "2.10"}}
    mixed = [score(record=old), score("b", record=new), score("b", "x", record=new)]
    note = "scores of different versions: torch 2.10 and 2.9"
    assert [table.notes for table in [*build_tables(mixed), *build_further(mixed)]] == [(note,), ()]
    assert f"- {note}" in to_markdown(build_tables(mixed))
    assert build_tables([score(record=old), score("b", protocol="demo", record=new)])[0].notes == ()


def test_tasks_outside_the_paper_have_their_own_table() -> None:
    scores = [score(), score(column="tissue-7", mean=0.8)]
    assert "tissue-7" not in build_tables(scores)[0].rows[0].cells
    further = build_further(scores)[0]
    assert [column.key for column in further.columns] == ["tissue-7"]
    assert further.rows[0].average is None


def test_how_a_folder_of_ones_own_is_divided_is_said_once_below_the_table() -> None:
    by_image = {"kind": "folder", "column": "Lung"}
    given = {"kind": "folder", "extra": {"division": "the given split (…)", "left_out": ["2 images"]}}
    scores = [score(model, "lung", record=by_image) for model in "ab"]
    scores += [score(model, "polyps", record=given) for model in "ab"]
    table = build_further([*scores, score("a", "tissue-7", record={"kind": "tile"})])[0]
    assert [column.short for column in table.columns] == ["Lung", "polyps", "tissue-7"]
    assert "tiles of one slide may be on both sides" in table.notes[0]
    assert table.notes[0].startswith("lung: random halves of the images; ")
    assert table.notes[1:] == ("polyps: the given split (…)", "polyps: left out: 2 images")
    assert f"- {table.notes[1]}" in to_markdown([table])


def test_all_files_are_written_also_without_scores(tmp_path: Path) -> None:
    write_tables(load_scores(write_scores(tmp_path / "scores")), tmp_path / "full")
    write_tables([], tmp_path / "empty")
    for folder in ("full", "empty"):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == sorted(TABLE_FILES)
    assert "nan" not in (tmp_path / "full" / "tablea1.csv").read_text().lower()
