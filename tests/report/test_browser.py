"""The page in headless Chromium, at a desk's and at a phone's width."""

from pathlib import Path

import pytest

from midnight.report.page import ReportInputs, build_report
from tests.report.browser import WIDTHS, chromium, look

pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium on the PATH")


@pytest.fixture(scope="module")
def page(inputs: ReportInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    build_report(inputs, folder / "report.html")
    return folder / "report.html"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_shows_cleanly(page: Path, width: int) -> None:
    seen = look(page, width)
    assert seen.problems() == []
    assert seen.found["images"] == 8
    assert seen.found["scripts"] == 0


def test_an_empty_report_shows_cleanly(tmp_path: Path) -> None:
    build_report(ReportInputs("Nothing yet", "real"), tmp_path / "report.html")
    assert look(tmp_path / "report.html", 390).problems() == []


def test_the_checker_sees_what_is_wrong(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!DOCTYPE html><main>NaN <img src='absent.png' alt='a'><div style='width:900px'>wide</div></main>"
        "<script>console.error('broken thing')</script>"
    )
    problems = " | ".join(look(bad, 390).problems())
    for expected in ("broken thing", "scrolls sideways", "broken image: a", "reads from outside", "NaN"):
        assert expected in problems
