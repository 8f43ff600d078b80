import base64
import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from midnight.report.page import ReportInputs, build_report, render
from midnight.slides.record import Refused
from tests.report.example import NASTY, write_manifest_of, write_scores, write_slides


class Tags(HTMLParser):
    """Collects start tags and complains about ones that do not nest."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(text: str) -> list[tuple[str, dict[str, str | None]]]:
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    return tags.seen


def visible(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", text.partition("<body>")[2]))


@pytest.fixture(scope="module")
def page(inputs: ReportInputs) -> str:
    return render(inputs)


def test_the_page_is_well_formed_and_self_contained(page: str) -> None:
    tags = parsed(page)
    assert [tag for tag, _ in tags if tag in ("script", "iframe", "object")] == []
    sources = [attributes.get("src") or "" for tag, attributes in tags if tag == "img"]
    assert len(sources) == 8
    assert all(source.startswith("data:image/") for source in sources)
    assert all(attributes["href"] == "data:," for tag, attributes in tags if tag == "link")
    assert "url(" not in page.partition("</style>")[0]
    assert len(page) < 8_000_000


def test_every_image_has_an_alternative_text_and_every_link_of_the_contents_a_target(page: str) -> None:
    tags = parsed(page)
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    targets = {attributes["id"] for _, attributes in tags if attributes.get("id")}
    links = {str(a["href"])[1:] for tag, a in tags if tag == "a" and str(a.get("href")).startswith("#")}
    assert links and links <= targets


def test_demo_data_is_marked_and_real_data_too(inputs: ReportInputs, page: str, tmp_path: Path) -> None:
    assert "Demo data: not comparable with published numbers." in page
    real = render(replace(inputs, data="real", scores=write_scores(tmp_path, data="real"), figures=()))
    assert "Demo data" not in real
    assert 'class="badge real"' in real


def test_markup_in_a_reason_is_text(page: str) -> None:
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    assert NASTY in visible(page)


def test_results_mark_the_partial_average_and_the_tasks_not_run(page: str) -> None:
    text = visible(page)
    assert "mean of 4 of 13, HEST of 2 of 9 tasks" in text
    assert "– in brcs, bkhs, crc, glsn, mhst, pc, c16, pnd, mnsc: not among the tasks of this run" in text
    assert "it can't be set beside a published average" in text
    assert page.count('title="not among the tasks of this run"') == 6 * 9


def test_published_numbers_are_apart_and_their_discrepancies_shown(page: str) -> None:
    section = page[page.index('<section id="published"') : page.index('<section id="training"')]
    assert "Demo/196" not in section
    assert "published, not ours" in section
    assert "Where the published numbers disagree" in section
    assert "OpenMidnight&#39;s text says .946 on BreaKHis" in section
    results = page[: page.index('<section id="published"')]
    assert "Midnight-92k/392" not in results


def test_unknown_numbers_are_never_shown_as_nan(inputs: ReportInputs, tmp_path: Path) -> None:
    paths = write_scores(tmp_path)
    paths[0].write_text(re.sub(r'"mean": [\d.]+', '"mean": NaN', paths[0].read_text()))
    text = visible(render(replace(inputs, scores=paths)))
    assert not re.search(r"\b(nan|NaN|None|inf)\b", text)
    assert "the score is not a finite number" in text


def test_credentials_of_the_configuration_are_not_shown(page: str) -> None:
    assert "secret" not in page
    assert "http://…@localhost:80/" in page


def test_downloads_decode_to_the_tables(page: str) -> None:
    uri = re.search(r'download="tablea1.csv" href="data:text/csv;charset=utf-8;base64,([^"]+)"', page)
    assert uri is not None
    lines = base64.b64decode(uri[1]).decode().splitlines()
    assert lines[0].startswith("model,label,size,pooling,data,protocol,pc10,pc10_pm")
    assert len(lines) == 7


def test_every_part_may_be_missing(tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    build_report(ReportInputs("Nothing yet", "real"), output)
    text = visible(output.read_text())
    parsed(output.read_text())
    for sentence in (
        "There are no scores of the paper's tasks yet.",
        "There is no trained model with a random initialisation to compare with.",
        "No model was trained in this run.",
        "No figure of embeddings was made in this run.",
        "No figure of tiles or tissue was made in this run.",
        "This run read no slides.",
        "No wall times were recorded.",
    ):
        assert sentence in text


@pytest.mark.parametrize("missing", ["tissue", "slides", "runs", "figures", "benchmarks", "config"])
def test_any_one_part_may_be_missing(inputs: ReportInputs, missing: str) -> None:
    empty = ReportInputs("x", "demo")
    text = visible(render(replace(inputs, **{missing: getattr(empty, missing)})))
    assert not re.search(r"\b(nan|NaN|None)\b", text)


def test_one_pooling_is_enough(inputs: ReportInputs) -> None:
    only = [path for path in inputs.scores if "cls_mean" not in str(path)]
    text = render(replace(inputs, scores=only))
    assert "Demo/196 [CLS]" in text
    assert 'download="table2.csv"' not in text
    assert 'download="tablea1.csv"' in text


def test_no_quarantined_slide_is_said(inputs: ReportInputs, tmp_path: Path) -> None:
    path = write_slides(tmp_path, damaged=())
    assert "No slide was quarantined." in visible(render(replace(inputs, slides=[path], tissue=[])))


def test_files_refused_at_pinning_are_listed(inputs: ReportInputs, page: str, tmp_path: Path) -> None:
    manifest = write_manifest_of(tmp_path, [Refused("'<b>.vsi'", "convert it")])
    refused = render(replace(inputs, manifests=[manifest]))
    assert "&lt;b&gt;.vsi" in refused and "convert it" in visible(refused)
    assert "Refused at pinning" in refused and "Refused at pinning" not in page


def test_mixed_versions_are_said_below_the_table(inputs: ReportInputs, page: str, tmp_path: Path) -> None:
    paths = write_scores(tmp_path)
    paths[0].write_text(paths[0].read_text().replace('"torch": "2.10.0"', '"torch": "2.9.1"'))
    words = "scores of different versions: torch 2.10.0 and 2.9.1"
    assert words in visible(render(replace(inputs, scores=paths)))
    assert "scores of different versions" not in visible(page)


def test_custom_tasks_have_their_own_table_outside_the_average(inputs: ReportInputs, tmp_path: Path) -> None:
    paths = write_scores(tmp_path)
    for path in paths:
        if path.stem == "bach":
            path.write_text(path.read_text().replace('"column": "bach"', '"column": "tissue-7"'))
    text = visible(render(replace(inputs, scores=paths)))
    assert "Further tasks" in text
    assert "mean of 3 of 13" in text
