"""Slides that could not be had are tried again, alone; a table changes only when they do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midnight.config import Gdc
from midnight.demo.gdc_service import GdcService
from midnight.slides.again import has_unavailable, next_attempt
from midnight.slides.fetch import fetch_again
from midnight.slides.quarantine import quarantined, read_statuses, unavailable, usable, write_statuses

Serve = Callable[..., GdcService]
MakeGdc = Callable[..., Gdc]


@pytest.fixture
def refused(serve: Serve, make_gdc: MakeGdc, fetcher: Any, edit: Callable[..., dict[str, Any]]) -> GdcService:
    """A service that refused one slide of five and is asked about nothing since."""
    row = edit(2)
    service = serve(fail=1, fail_code=403, fail_path=f"/data/{row['file_id']}")
    fetcher.pin(make_gdc(service))
    statuses = fetcher.fetch(make_gdc(service))
    assert [status.status for status in statuses].count("unavailable") == 1
    service.requests.clear()
    return service


def again(fetcher: Any, gdc: Gdc) -> int:
    return fetch_again(fetcher.shard, fetcher.slides, gdc, fetcher.raw)


def test_the_next_try_asks_for_that_slide_alone(
    refused: GdcService, make_gdc: MakeGdc, fetcher: Any, edit: Callable[..., dict[str, Any]]
) -> None:
    before = read_statuses(fetcher.slides)
    assert has_unavailable(fetcher.slides)
    assert again(fetcher, make_gdc(refused)) == 1
    assert [request.path for request in refused.requests] == [f"/data/{edit(2)['file_id']}"]
    after = read_statuses(fetcher.slides)
    assert all(status.ok for status in after) and not has_unavailable(fetcher.slides)
    assert [new for new, old in zip(after, before, strict=True) if old.ok] == [old for old in before if old.ok]
    assert [status.slide_id for status in after] == [status.slide_id for status in before]


@pytest.mark.parametrize("hooks", [{"fail": 99, "fail_code": 403}, {"fail": 99, "fail_code": 503}, {"page": "/data/"}])
def test_a_table_in_which_nothing_changes_is_not_touched(
    refused: GdcService, make_gdc: MakeGdc, fetcher: Any, hooks: dict[str, Any]
) -> None:
    for name, value in hooks.items():
        setattr(refused.hooks, name, value)
    before = fetcher.slides.stat().st_mtime_ns, fetcher.slides.read_bytes()
    assert again(fetcher, make_gdc(refused)) == 0
    assert (fetcher.slides.stat().st_mtime_ns, fetcher.slides.read_bytes()) == before


def test_a_service_that_is_down_leaves_things_as_they_are(
    refused: GdcService, make_gdc: MakeGdc, fetcher: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gdc = make_gdc(refused, retries=1)
    refused.stop()
    assert again(fetcher, gdc) == 0
    assert "1 slides stay unavailable" in caplog.text and has_unavailable(fetcher.slides)


def test_a_slide_that_is_gone_for_good_is_not_asked_for_a_third_time(
    refused: GdcService, make_gdc: MakeGdc, fetcher: Any, catalogue: Path, edit: Callable[..., dict[str, Any]]
) -> None:
    (catalogue / edit(2)["file_name"]).unlink()
    assert again(fetcher, make_gdc(refused)) == 0
    assert not has_unavailable(fetcher.slides)
    assert [status.status for status in read_statuses(fetcher.slides)].count("quarantined") == 1


def test_local_slides_that_were_away_are_tried_again(fetcher: Any, tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.svs").write_bytes(b"x")
    gdc = Gdc()
    fetcher.pin(gdc, source="local", path=str(folder))
    (folder / "1.svs").rename(tmp_path / "away.svs")
    assert [status.status for status in fetcher.fetch(gdc, "local")] == ["ok", "unavailable", "ok"]
    (tmp_path / "away.svs").rename(folder / "1.svs")
    assert again(fetcher, gdc) == 1
    assert all(status.ok for status in read_statuses(fetcher.slides))


def test_a_table_says_cheaply_whether_it_has_such_slides(tmp_path: Path) -> None:
    table = tmp_path / "0001.tsv"
    assert not has_unavailable(table)
    write_statuses(table, [usable("unavailable", "/unavailable", 1), quarantined("b", "unavailable")], {})
    assert not has_unavailable(table)
    write_statuses(table, [usable("a", "/a", 1), unavailable("b", "HTTP 403")], {})
    assert has_unavailable(table)


def test_attempts_are_numbered(tmp_path: Path) -> None:
    assert next_attempt(tmp_path / "nowhere") == "1"
    for name in ("1", "9", "10", "other"):
        (tmp_path / name).mkdir()
    assert next_attempt(tmp_path) == "11"
