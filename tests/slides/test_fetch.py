import json
import logging
import os
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midnight.config import Gdc
from midnight.demo.gdc_service import GdcService
from midnight.errors import MidnightError, ServiceError
from midnight.slides import download
from midnight.slides.manifest import read_manifest

Serve = Callable[..., GdcService]
MakeGdc = Callable[..., Gdc]
Edit = Callable[..., dict[str, Any]]
SIZE = 300_000


def downloads(service: GdcService) -> list[str]:
    return [request.path for request in service.requests if request.path.startswith("/data/")]


def reason(statuses: list[Any], row: dict[str, Any], status: str = "quarantined") -> str:
    found = next(found for found in statuses if found.slide_id == row["file_name"].removesuffix(".svs"))
    assert found.status == status and found.path == ""
    return str(found.reason)


def later(statuses: list[Any], row: dict[str, Any]) -> str:
    """Why a slide is unavailable for now."""
    return reason(statuses, row, "unavailable").removeprefix("unavailable for now: ")


def test_whole_shard(serve: Serve, make_gdc: MakeGdc, fetcher: Any, catalogue: Path) -> None:
    service = serve()
    fetcher.pin(make_gdc(service))
    statuses = fetcher.fetch(make_gdc(service))
    assert [status.status for status in statuses] == ["ok"] * 5
    assert read_manifest(fetcher.shard) == read_manifest(fetcher.manifest)
    for slide, status in zip(read_manifest(fetcher.manifest), statuses, strict=True):
        path = Path(status.path)
        assert path == fetcher.raw / slide.file_id / slide.file_name
        assert path.read_bytes() == (catalogue / slide.file_name).read_bytes()
        assert status.bytes == SIZE and not list(path.parent.glob("*.partial"))


def test_rerun_asks_for_nothing_and_reads_nothing(
    serve: Serve, make_gdc: MakeGdc, fetcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    fetcher.pin(make_gdc(service))
    fetcher.fetch(make_gdc(service))
    service.requests.clear()
    with monkeypatch.context() as patch:
        patch.setattr("midnight.slides.verified.hash_file", lambda *_: pytest.fail("read again"))
        assert all(status.ok for status in fetcher.fetch(make_gdc(service)))
    assert service.requests == []


def test_changed_file_is_noticed_and_fetched_again(serve: Serve, make_gdc: MakeGdc, fetcher: Any) -> None:
    service = serve()
    fetcher.pin(make_gdc(service))
    paths = [Path(status.path) for status in fetcher.fetch(make_gdc(service))]
    content = [path.read_bytes() for path in paths]
    paths[0].write_bytes(bytes(SIZE))
    paths[1].write_bytes(b"short")
    os.utime(paths[2])
    service.requests.clear()
    assert all(status.ok for status in fetcher.fetch(make_gdc(service)))
    assert [path.read_bytes() for path in paths] == content
    assert len(downloads(service)) == 2


def test_cut_connection_is_resumed_by_range(serve: Serve, make_gdc: MakeGdc, fetcher: Any) -> None:
    service = serve(cut_once=100_000)
    fetcher.pin(make_gdc(service))
    assert all(status.ok for status in fetcher.fetch(make_gdc(service)))
    ranges = [request.headers.get("Range") for request in service.requests if request.path.startswith("/data/")]
    assert sorted(ranges, key=str) == [None] * 5 + ["bytes=100000-"] * 5


def test_partial_of_an_earlier_run_is_used_but_never_taken_for_a_slide(
    serve: Serve, make_gdc: MakeGdc, fetcher: Any, catalogue: Path
) -> None:
    service = serve()
    fetcher.pin(make_gdc(service))
    first, second, third, *_ = read_manifest(fetcher.manifest)
    for slide, content in (
        (first, (catalogue / first.file_name).read_bytes()[:50_000]),
        (second, (catalogue / second.file_name).read_bytes()),
        (third, bytes(SIZE + 7)),
    ):
        path = download.partial_path(download.slide_path(fetcher.raw, slide))
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    assert all(status.ok for status in fetcher.fetch(make_gdc(service)))
    asked = {request.path: request.headers.get("Range") for request in service.requests if "/data/" in request.path}
    assert asked[f"/data/{first.file_id}"] == "bytes=50000-"
    assert f"/data/{second.file_id}" not in asked
    assert asked[f"/data/{third.file_id}"] is None
    assert not list(fetcher.raw.rglob("*.partial"))


def test_server_without_range(serve: Serve, make_gdc: MakeGdc, fetcher: Any) -> None:
    service = serve(cut_once=100_000, ignore_range=True)
    fetcher.pin(make_gdc(service))
    assert all(status.ok for status in fetcher.fetch(make_gdc(service)))
    assert len(downloads(service)) == 10


@pytest.mark.parametrize("code", [429, 503])
def test_busy_service_is_asked_again(serve: Serve, make_gdc: MakeGdc, fetcher: Any, code: int) -> None:
    service = serve(fail=6, fail_code=code, fail_path="/data/")
    fetcher.pin(make_gdc(service))
    assert all(status.ok for status in fetcher.fetch(make_gdc(service, retries=8)))
    assert len(downloads(service)) == 11


def test_wrong_md5_is_fetched_twice_then_quarantined(serve: Serve, make_gdc: MakeGdc, fetcher: Any, edit: Edit) -> None:
    right = edit(2)["md5sum"]
    row = edit(2, md5sum="0" * 32)
    service = serve()
    fetcher.pin(make_gdc(service))
    statuses = fetcher.fetch(make_gdc(service))
    assert f"md5 mismatch: expected {'0' * 32}, got {right}" in reason(statuses, row)
    assert [status.ok for status in statuses].count(True) == 4
    assert downloads(service).count(f"/data/{row['file_id']}") == 2
    assert not list((fetcher.raw / row["file_id"]).iterdir())


def test_damaged_partial_is_mended_by_a_whole_download(
    serve: Serve, make_gdc: MakeGdc, fetcher: Any, catalogue: Path
) -> None:
    service = serve()
    fetcher.pin(make_gdc(service))
    slide = read_manifest(fetcher.manifest)[0]
    path = download.partial_path(download.slide_path(fetcher.raw, slide))
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(1000))
    statuses = fetcher.fetch(make_gdc(service))
    assert all(status.ok for status in statuses)
    assert Path(statuses[0].path).read_bytes() == (catalogue / slide.file_name).read_bytes()


def test_truncated_file_is_unavailable_for_now(serve: Serve, make_gdc: MakeGdc, fetcher: Any, edit: Edit) -> None:
    row = edit(1, truncate_to=120_000)
    service = serve()
    fetcher.pin(make_gdc(service))
    statuses = fetcher.fetch(make_gdc(service))
    closed = "the service closed the connection early"
    assert later(statuses, row) == f"incomplete: 120000 of {SIZE} bytes after 3 attempts: {closed}"
    assert [status.ok for status in statuses].count(True) == 4
    partial = fetcher.raw / row["file_id"] / (row["file_name"] + ".partial")
    assert partial.stat().st_size == 120_000
    assert not (fetcher.raw / row["file_id"] / row["file_name"]).exists()
    edit(1, truncate_to=None)
    assert all(status.ok for status in fetcher.fetch(make_gdc(service)))


def test_whole_shard_of_slides_that_are_other_files_is_no_service_failure(
    serve: Serve, make_gdc: MakeGdc, fetcher: Any, edit: Edit
) -> None:
    for number in range(4):
        edit(number, stored=10_000)
    edit(4, md5sum="0" * 32)
    service = serve()
    fetcher.pin(make_gdc(service))
    assert [status.status for status in fetcher.fetch(make_gdc(service))] == ["quarantined"] * 5


def test_files_of_other_sizes_than_promised(serve: Serve, make_gdc: MakeGdc, fetcher: Any, edit: Edit) -> None:
    longer, shorter = edit(0, file_size=1000), edit(1, stored=1000)
    service = serve()
    fetcher.pin(make_gdc(service))
    statuses = fetcher.fetch(make_gdc(service))
    assert f"size mismatch: expected 1000 bytes, the service has {SIZE}" in reason(statuses, longer)
    assert f"size mismatch: expected {SIZE} bytes, the service has 1000" in reason(statuses, shorter)
    assert not list((fetcher.raw / longer["file_id"]).iterdir())


def test_stall_ends_and_keeps_what_came(serve: Serve, make_gdc: MakeGdc, fetcher: Any) -> None:
    service = serve(stall_at=150_000)
    fetcher.pin(make_gdc(service))
    start = time.monotonic()
    with pytest.raises(ServiceError, match=r"5 of 5 slides .*: incomplete: 150000 of .*no byte for 0\.3 s"):
        fetcher.fetch(make_gdc(service, timeout=0.3, retries=2, parallel=5))
    assert time.monotonic() - start < 10
    assert [path.stat().st_size for path in fetcher.raw.rglob("*.partial")] == [150_000] * 5
    service.hooks.stall_at = None
    assert all(status.ok for status in fetcher.fetch(make_gdc(service)))


def test_trickle_is_cut_and_resumed(
    serve: Serve, make_gdc: MakeGdc, fetcher: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    service = serve(trickle_once=100_000)
    fetcher.pin(make_gdc(service))
    assert all(status.ok for status in fetcher.fetch(make_gdc(service, timeout=0.5, least_rate=2000, retries=9)))
    assert "bytes/s for 0.5" in caplog.text and "less than the least rate of 2000" in caplog.text
    ranges = [request.headers.get("Range") for request in service.requests if request.path.startswith("/data/")]
    assert ranges.count(None) == 5 and all(int(text[6:-1]) > 100_000 for text in ranges if text)


def test_vanished_files_are_quarantined_and_refused_ones_tried_again(
    serve: Serve, make_gdc: MakeGdc, fetcher: Any, edit: Edit, catalogue: Path
) -> None:
    controlled, gone = edit(0, access="controlled"), edit(3)
    service = serve(token="secret")
    fetcher.pin(make_gdc(service))
    (catalogue / gone["file_name"]).unlink()
    statuses = fetcher.fetch(make_gdc(service))
    assert later(statuses, controlled).startswith("HTTP 403: access is controlled; set gdc.token_file")
    assert reason(statuses, gone).startswith("HTTP 404: the service does not have it")
    assert len(downloads(service)) == 5


@pytest.mark.parametrize(("code", "status"), [(403, "unavailable"), (400, "unavailable"), (410, "quarantined")])
def test_only_not_found_and_gone_are_for_good(
    serve: Serve, make_gdc: MakeGdc, fetcher: Any, edit: Edit, code: int, status: str
) -> None:
    row = edit(1)
    service = serve(fail=1, fail_code=code, fail_path=f"/data/{row['file_id']}")
    fetcher.pin(make_gdc(service))
    assert f"HTTP {code}" in reason(fetcher.fetch(make_gdc(service)), row, status)
    assert all(found.ok for found in fetcher.fetch(make_gdc(service)))


def test_refusal_of_an_open_file_is_told_as_it_is(serve: Serve, make_gdc: MakeGdc, fetcher: Any, edit: Edit) -> None:
    row = edit(1)
    service = serve(fail=1, fail_code=403, fail_path=f"/data/{row['file_id']}")
    fetcher.pin(make_gdc(service))
    said = "HTTP 403, though the manifest says that access is open: told to fail"
    assert later(fetcher.fetch(make_gdc(service)), row) == said


def test_login_page_is_told_and_costs_nothing_that_came(
    serve: Serve, make_gdc: MakeGdc, fetcher: Any, edit: Edit, catalogue: Path
) -> None:
    row = edit(1)
    service = serve(page=f"/data/{row['file_id']}")
    fetcher.pin(make_gdc(service))
    slide = next(slide for slide in read_manifest(fetcher.manifest) if slide.file_id == row["file_id"])
    partial = download.partial_path(download.slide_path(fetcher.raw, slide))
    partial.parent.mkdir(parents=True)
    partial.write_bytes((catalogue / slide.file_name).read_bytes()[:200_000])
    statuses = fetcher.fetch(make_gdc(service))
    assert later(statuses, row).startswith("an HTML page ('Network login') came instead of the file")
    assert partial.stat().st_size == 200_000
    service.hooks.page = ""
    service.requests.clear()
    assert all(status.ok for status in fetcher.fetch(make_gdc(service)))
    assert [request.headers.get("Range") for request in service.requests] == ["bytes=200000-"]


@pytest.mark.parametrize("hooks", [{"page": "/data/"}, {"fail": 10_000, "fail_code": 403, "fail_path": "/data/"}])
def test_shard_of_which_most_is_refused_is_an_error(
    serve: Serve, make_gdc: MakeGdc, fetcher: Any, hooks: dict[str, Any]
) -> None:
    service = serve()
    fetcher.pin(make_gdc(service))
    for name, value in hooks.items():
        setattr(service.hooks, name, value)
    with pytest.raises(ServiceError, match=r"5 of 5 slides of the shard are unavailable, .*try again later"):
        fetcher.fetch(make_gdc(service))
    assert not fetcher.slides.exists() and not fetcher.shard.exists()
    service.hooks.page, service.hooks.fail = "", 0
    assert all(status.ok for status in fetcher.fetch(make_gdc(service)))


def test_service_down_is_an_error_and_loses_nothing(serve: Serve, make_gdc: MakeGdc, fetcher: Any) -> None:
    service = serve()
    fetcher.pin(make_gdc(service))
    gdc = make_gdc(service, retries=2)
    service.stop()
    with pytest.raises(ServiceError, match="run again") as caught:
        fetcher.fetch(gdc)
    assert service.url in str(caught.value)
    assert not fetcher.slides.exists() and not fetcher.shard.exists()


def test_data_down_while_status_is_up(serve: Serve, make_gdc: MakeGdc, fetcher: Any) -> None:
    service = serve(fail=10_000, fail_path="/data/")
    fetcher.pin(make_gdc(service))
    with pytest.raises(ServiceError, match="none of 5 slides could be fetched: HTTP 503 after 3 attempts"):
        fetcher.fetch(make_gdc(service))
    assert not fetcher.slides.exists()


def test_service_that_dies_midway_keeps_what_was_fetched(
    serve: Serve, make_gdc: MakeGdc, fetcher: Any, edit: Edit
) -> None:
    service = serve()
    fetcher.pin(make_gdc(service))
    original = service.should_fail
    service.should_fail = lambda path: len(downloads(service)) > 2 or original(path)  # type: ignore[method-assign]
    with pytest.raises(ServiceError):
        fetcher.fetch(make_gdc(service, parallel=1))
    assert len(list(fetcher.raw.rglob("*.svs"))) == 2
    service.should_fail = original  # type: ignore[method-assign]
    service.requests.clear()
    assert all(status.ok for status in fetcher.fetch(make_gdc(service)))
    assert len(downloads(service)) == 3


def test_one_slide_that_the_service_fails_is_unavailable(
    serve: Serve, make_gdc: MakeGdc, fetcher: Any, edit: Edit
) -> None:
    row = edit(1)
    service = serve(fail=3, fail_code=500, fail_path=f"/data/{row['file_id']}")
    fetcher.pin(make_gdc(service))
    statuses = fetcher.fetch(make_gdc(service))
    assert later(statuses, row) == "not delivered by the service: HTTP 500 after 3 attempts"
    assert [status.ok for status in statuses].count(True) == 4


def test_disk_without_room_is_told_before_anything_is_fetched(
    serve: Serve, make_gdc: MakeGdc, fetcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    fetcher.pin(make_gdc(service))
    usage = namedtuple("usage", "total used free")(10**6, 0, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(MidnightError, match=f"disk is full: {5 * SIZE} more bytes are needed, 1000 are free") as caught:
        fetcher.fetch(make_gdc(service))
    assert str(fetcher.raw) in str(caught.value)
    assert downloads(service) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_disk_that_fills_up_on_the_way(serve: Serve, make_gdc: MakeGdc, fetcher: Any) -> None:
    service = serve()
    fetcher.pin(make_gdc(service))
    slide = read_manifest(fetcher.manifest)[0]
    path = download.partial_path(download.slide_path(fetcher.raw, slide))
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/full")
    with pytest.raises(MidnightError, match="disk is full") as caught:
        fetcher.fetch(make_gdc(service))
    assert str(path.parent) in str(caught.value) and "\n" not in str(caught.value)
    assert threading.active_count() < 20


def test_wrong_source_and_wrong_shard(serve: Serve, make_gdc: MakeGdc, fetcher: Any) -> None:
    service = serve()
    fetcher.pin(make_gdc(service))
    with pytest.raises(MidnightError, match="not of source 'local'"):
        fetcher.fetch(make_gdc(service), source="local")


def test_log_tells_what_was_left_out(
    serve: Serve, make_gdc: MakeGdc, fetcher: Any, edit: Edit, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    row = edit(2, truncate_to=5)
    service = serve()
    fetcher.pin(make_gdc(service))
    fetcher.fetch(make_gdc(service))
    assert "4 slides ok" in caplog.text and "0 quarantined, 1 unavailable for now" in caplog.text
    assert row["case_id"] in caplog.text and "incomplete: 5 of" in caplog.text


def test_sidecar_is_what_it_says(serve: Serve, make_gdc: MakeGdc, fetcher: Any) -> None:
    service = serve()
    fetcher.pin(make_gdc(service))
    path = Path(fetcher.fetch(make_gdc(service))[0].path)
    note = json.loads(path.with_name(path.name + ".verified.json").read_text())
    slide = read_manifest(fetcher.manifest)[0]
    assert note == {"size": SIZE, "mtime_ns": path.stat().st_mtime_ns, "md5": slide.md5}
