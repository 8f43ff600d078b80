import pytest

from midnight.report.columns import KEYS
from midnight.report.published import (
    RESULTS,
    compare,
    discrepancies,
    published_table,
    read_rows,
    sources,
    wrong_averages,
)

MISSPELT = ("Virechow", "Prev_", "tcsa", "vig14")


@pytest.mark.parametrize(("name", "rows"), [("table2", 13), ("tablea1", 36), ("readme", 15), ("openmidnight", 18)])
def test_every_row_and_cell_is_there(name: str, rows: int) -> None:
    table = published_table(name)
    assert len(table.rows) == rows
    assert all(0 < (row.cells[key].value or 0) < 1 for row in table.rows for key in KEYS)
    assert table.data == "published"


def test_table_a1_has_both_poolings_and_errors_in_every_cell() -> None:
    table = published_table("tablea1")
    assert [sum(row.pooling == pooling for row in table.rows) for pooling in ("cls", "cls_mean")] == [18, 18]
    assert all(row.cells[key].error is not None for row in table.rows for key in KEYS)
    assert all(row.average is not None and row.average.error is not None for row in table.rows)


def test_known_cells_of_the_paper() -> None:
    row = next(row for row in read_rows("tablea1") if row["model"] == "Midnight-92k/392" and row["pooling"] == "cls")
    assert (row["bkhs"], row["c16"], row["c16_pm"], row["hest_pm"], row["average"]) == (
        "0.850",
        "0.831",
        "0.002",
        "0.044",
        "0.774",
    )


@pytest.mark.parametrize("name", RESULTS)
def test_names_are_normalised_and_the_printed_ones_kept(name: str) -> None:
    rows = read_rows(name)
    assert not [row["model"] for row in rows if any(wrong in row["model"] for wrong in MISSPELT)]
    assert all(row["printed"] for row in rows)


def test_misspelt_names_are_kept_as_printed() -> None:
    printed = {row["printed"]: row["model"] for row in read_rows("tablea1")}
    assert printed["Virechow2"] == "Virchow2"
    assert printed["Prev_GigaPath"] == "Prov-GigaPath"
    assert printed["vig14 (initial)"] == "vitg14 (initial)"


def test_printed_averages_are_the_means_of_their_rows_but_for_these() -> None:
    wrong = {(name, model, pooling) for name in RESULTS for model, pooling, _, _ in wrong_averages(name)}
    assert wrong == {("tablea1", "Hibou-L", "cls"), ("openmidnight", "Hibou-L", "cls")}


def test_printed_errors_of_averages_are_the_means_of_the_errors_but_for_this() -> None:
    assert [row[:2] for row in wrong_averages("tablea1", "_pm")] == [("Kaiko-B8", "cls_mean")]


def test_the_readme_disagrees_with_table_2_on_midnight_12k() -> None:
    found = [item for item in discrepancies() if item.model == "Midnight-12k" and item.column == "average"]
    assert [(item.first_value, item.second_value) for item in found] == [(0.763, 0.761)]


def test_a_tie_in_rounding_is_no_discrepancy() -> None:
    # Table 2 has Midnight-12k .815 on MHIST, the README .82; UNI-2 .885 on PCam (10 shots), the README .89.
    cells = {(item.model, item.column) for item in compare("table2", "readme")}
    assert ("Midnight-12k", "mhst") not in cells
    assert ("UNI-2", "pc10") not in cells
    assert ("Virchow2", "c16") in cells


def test_openmidnights_swap_is_noted() -> None:
    notes = " ".join(sources()["openmidnight"]["notes"])
    assert ".946 on BreaKHis" in notes
    row = read_rows("openmidnight")[0]
    assert (row["bkhs"], row["c16"]) == ("0.873", "0.946")


def test_table_3_leaves_each_cohort_out_once() -> None:
    rows = read_rows("table3")
    cohorts = ("tcga", "nki80k", "cptac", "gtex")
    last = [tuple(row[name] for name in cohorts) for row in rows[7:]]
    assert sorted(last) == sorted(
        [("0", "1", "1", "1"), ("1", "0", "1", "1"), ("1", "1", "0", "1"), ("1", "1", "1", "0"), ("1", "1", "1", "1")]
    )
    assert (rows[0]["eva"], rows[0]["hest"]) == ("", "")


def test_every_table_names_its_source() -> None:
    assert set(sources()) == {"table1", "table2", "tablea1", "table3", "readme", "openmidnight"}
    assert all(entry["source"] and entry["url"].startswith("https://") for entry in sources().values())
    assert len(read_rows("table1")) == 12
