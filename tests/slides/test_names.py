import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.slides.names import case_of, file_id_problem, file_name_problem, slide_id_of, unique_slide_ids

EVIL = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b.svs",
    "a\\b.svs",
    ".hidden.svs",
    "a..svs",
    "a\n.svs",
    "a.svs\n",
    "a\x00.svs",
    "a\tb.svs",
    "-rf.svs",
    "$(id).svs",
    "ä.svs",
    "x" * 300,
    "a.svs ",
    "a.svs.partial",
    "a.svs.verified.json",
]


@pytest.mark.parametrize("name", EVIL)
def test_evil_file_names_are_refused(name: str) -> None:
    assert file_name_problem(name)


@pytest.mark.parametrize("file_id", ["", "..", "../x", "a/b", ".a", "a..b", "a?b", "a b", "a\n", "a#b", "a%2e"])
def test_evil_file_ids_are_refused(file_id: str) -> None:
    assert file_id_problem(file_id)


def test_real_names_pass() -> None:
    assert not file_name_problem("TCGA-22-1017-01Z-00-DX1.9562FE79-A261-42D3-B394-F3E0E2FF7DDA.svs")
    assert not file_id_problem("73c69d24-6f9e-44e2-bfe5-a608d4cf5c27")


def test_slide_id_drops_the_slide_suffix_only() -> None:
    assert slide_id_of("TCGA-22-1017.DX1.svs") == "TCGA-22-1017.DX1"
    assert slide_id_of("case 7 (HE).ndpi") == "case_7_HE"
    assert slide_id_of("archive.v2") == "archive.v2"


@given(st.text() | st.text("ab._-/ ", max_size=300))
def test_slide_ids_are_safe_whatever_the_name(name: str) -> None:
    slide_id = slide_id_of(name)
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", slide_id)
    assert ".." not in slide_id and len(slide_id) <= 200
    assert slide_id_of(slide_id + ".svs") == slide_id


def test_duplicates_get_their_file_id_whatever_the_order() -> None:
    names, ids = ["a.svs", "b.svs", "A.svs"], ["1", "2", "3"]
    assert unique_slide_ids(names, ids) == ["a_1", "b", "A_3"]
    assert unique_slide_ids(names[::-1], ids[::-1]) == ["A_3", "b", "a_1"]


def test_case_comes_from_the_barcode() -> None:
    assert case_of("TCGA-22-1017-01Z-00-DX1.x.svs") == "TCGA-22-1017"
    assert case_of("slide-22-1017.svs") == ""
