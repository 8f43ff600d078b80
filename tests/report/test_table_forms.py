import csv
import io
import re

import pytest

from midnight.report.formatting import number
from midnight.report.published import published_table
from midnight.report.table_forms import absences, escape_tex, to_csv, to_latex, to_markdown
from midnight.report.tables import build_tables
from tests.report.test_tables import score

NASTY = r"50% & $x_1$ #{~^\}<b>|"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8034, ".803"), (1.0, "1.000"), (0.9996, "1.000"), (-0.0123, "−.012"), (-0.0001, ".000"), (0.0, ".000")],
)
def test_numbers_look_as_in_the_paper(value: float, text: str) -> None:
    assert number(value) == text


def test_csv_has_values_and_errors_and_keeps_absent_cells_empty() -> None:
    tables = build_tables([score("a", label="a, b"), score("b", mean=0.7)])
    rows = list(csv.DictReader(io.StringIO(to_csv(tables))))
    assert [row["label"] for row in rows] == ["b", "a, b"]
    assert (rows[0]["bach"], rows[0]["bach_pm"], rows[0]["crc"]) == ("0.700000", "0.010000", "")
    assert (rows[0]["average"], rows[0]["average_columns"], rows[0]["data"]) == ("0.700000", "1", "real")


def test_csv_of_table_a1_holds_the_published_digits() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv([published_table("tablea1")]))))
    first = next(row for row in rows if row["model"] == "UNI-2" and row["pooling"] == "cls_mean")
    assert (float(first["c16"]), float(first["hest_pm"])) == (0.873, 0.039)


def test_markdown_is_a_table_with_as_many_cells_in_every_row() -> None:
    text = to_markdown(build_tables([score("a", label="x|y*"), score("b", mean=0.7)]))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    counts = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert counts == {2 + 13 + 1 + 1}
    assert "**.700**±.010" in text
    assert r"x\|y\*" in text
    assert "mean of 1 of 13" in text
    assert "- – in pc10, brcs" in text


def test_latex_escapes_and_balances() -> None:
    text = to_latex(build_tables([score("a", label=NASTY), score("b", mean=0.7)]))
    row = next(line for line in text.splitlines() if "50" in line)
    assert (
        r"50\% \& \$x\_1\$ \#\{\textasciitilde{}\textasciicircum{}\textbackslash{}\}\textless{}b\textgreater{}" in row
    )
    assert row.replace(r"\&", "").count("&") == 14
    body = re.sub(r"\\[{}]", "", text)
    assert body.count("{") == body.count("}")
    assert r"\textbf{.700}$_{\pm .010}$" in text
    assert text.count(r"\begin{") == text.count(r"\end{")


def test_latex_minus_and_dash_are_typeset() -> None:
    text = to_latex(build_tables([score("a", mean=-0.2, error=None)]))
    assert "$-$.200" in text
    assert " & -- & " in text
    assert "−" not in text


def test_escaping_leaves_plain_text_alone() -> None:
    assert escape_tex("Midnight-92k/392 [CLS]") == "Midnight-92k/392 [CLS]"
    assert escape_tex("a\nb") == "a b"


def test_absences_name_rows_only_where_they_differ() -> None:
    table = build_tables([score("a"), score("b", "crc", 0.9)], dict.fromkeys(("pc", "c16"), "no data"))[0]
    lines = absences(table)
    assert "– in pc, c16: no data" in lines
    assert "– in bach (b): no score for this model" in lines


def test_demo_tables_say_so_everywhere() -> None:
    tables = build_tables([score(data="demo")])
    assert "not comparable with published" in to_markdown(tables)
    assert "not comparable with published" in to_latex(tables)
    assert ",demo," in to_csv(tables)
