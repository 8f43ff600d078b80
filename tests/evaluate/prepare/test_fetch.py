import contextlib
import dataclasses
import random
import shutil
from collections import namedtuple
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from midnight.errors import MidnightError, ServiceError
from midnight.evaluate.prepare.fetch import fetch, partial_path
from midnight.slides.download import size_of
from tests.evaluate.prepare.loopback import RETRIES, Site

CONTENT = random.Random(0).randbytes(300_000)


@pytest.fixture
def url(site: Site) -> str:
    site.put("big", CONTENT, "big")
    return f"{site.service.url}/data/big"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "big"


def ranges(site: Site) -> list[str | None]:
    return [request.headers.get("Range") for request in site.service.requests]


def test_cut_connection_is_resumed_where_it_broke(site: Site, url: str, path: Path) -> None:
    site.service.hooks.cut_once = 100_000
    fetch(url, path, RETRIES)
    assert path.read_bytes() == CONTENT
    assert ranges(site) == [None, "bytes=100000-"]
    assert list(path.parent.iterdir()) == [path]


def test_service_without_ranges_sends_the_whole_file_again(site: Site, url: str, path: Path) -> None:
    site.service.hooks.cut_once, site.service.hooks.ignore_range = 100_000, True
    fetch(url, path, RETRIES)
    assert path.read_bytes() == CONTENT


def test_partial_files_of_earlier_runs(site: Site, url: str, path: Path) -> None:
    for known in (CONTENT[:5], CONTENT, CONTENT + b"more"):
        partial_path(path).write_bytes(known)
        fetch(url, path, RETRIES)
        assert path.read_bytes() == CONTENT
    assert ranges(site) == ["bytes=5-", "bytes=300000-", "bytes=300004-", None]


@pytest.mark.parametrize("code", [429, 503])
def test_busy_service_is_asked_again(site: Site, url: str, path: Path, code: int) -> None:
    site.service.hooks.fail, site.service.hooks.fail_code = 2, code
    fetch(url, path, RETRIES)
    assert path.read_bytes() == CONTENT and len(site.asked()) == 3


def test_stall_ends_in_one_line_and_keeps_what_came(site: Site, url: str, path: Path) -> None:
    site.service.hooks.stall_at = 200_000
    with pytest.raises(ServiceError, match=r"/data/big: no byte for 0.2 s; run again: the 200,000 bytes that came"):
        fetch(url, path, dataclasses.replace(RETRIES, timeout=0.2))
    assert not path.exists() and partial_path(path).read_bytes() == CONTENT[:200_000]
    site.service.hooks.stall_at = None
    fetch(url, path, RETRIES)
    assert path.read_bytes() == CONTENT


def test_service_that_is_down_is_one_line(site: Site, url: str, path: Path) -> None:
    site.service.stop()
    with pytest.raises(ServiceError, match=r"/data/big: ConnectionError: .*refused; run again") as caught:
        fetch(url, path, RETRIES)
    assert "\n" not in str(caught.value)


def test_refusals_are_not_repeated(site: Site, path: Path) -> None:
    with pytest.raises(ServiceError, match="/data/nothing: HTTP 404"):
        fetch(f"{site.service.url}/data/nothing", path, RETRIES)
    assert len(site.asked()) == 1 and not list(path.parent.iterdir())


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/x"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [
        ("text/html; charset=utf-8", b"Quota exceeded", "an HTML page came instead of the file"),
        ("", b"\n<!DOCTYPE html><title>Log\nin</title>", r"an HTML page \('Log in'\) came instead"),
        ("", b"<?xml version='1.0'?><Error/>", "an XML document came instead"),
        ("application/json", b'{"message": "no"}', "a JSON document came instead"),
    ],
)
def test_page_instead_of_a_file_is_refused_and_costs_nothing(path: Path, kind: str, body: bytes, says: str) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            if kind:
                self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

    partial_path(path).write_bytes(CONTENT[:5])
    with serving(Page) as url, pytest.raises(ServiceError, match=says):
        fetch(url, path, RETRIES)
    assert partial_path(path).read_bytes() == CONTENT[:5] and not path.exists()


def test_trickle_is_cut_and_resumed(site: Site, url: str, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    site.service.hooks.trickle_once = 100_000
    fetch(url, path, dataclasses.replace(RETRIES, timeout=0.5, least_rate=2000.0))
    assert path.read_bytes() == CONTENT
    assert "less than the least rate of 2000" in caplog.text
    assert ranges(site)[0] is None and all(int(str(text)[6:-1]) > 100_000 for text in ranges(site)[1:])


def test_answers_shorter_than_what_was_asked_for_are_continued(path: Path) -> None:
    class Short(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            body = CONTENT[start : start + 100_000]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(CONTENT)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    partial_path(path).write_bytes(CONTENT[:5])
    with serving(Short) as url:
        fetch(url, path, RETRIES)
    assert path.read_bytes() == CONTENT


def give_up(url: str, path: Path) -> None:
    with pytest.raises(ServiceError, match=r"/x: .*; run again"):
        fetch(url, path, RETRIES)
    assert not path.exists()


def ending_at(*sizes: int) -> type[BaseHTTPRequestHandler]:
    """Answers with the whole file whatever the range, but break off at these sizes, one after the other."""
    left = list(sizes)

    class Breaking(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[: left.pop(0)] if left else CONTENT)

    return Breaking


def test_only_more_than_ever_before_counts_as_progress(path: Path) -> None:
    with serving(ending_at(*[100, 200] * 5)) as url:
        give_up(url, path)
        assert partial_path(path).read_bytes() == CONTENT[:200]


def test_attempts_that_bring_little_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midnight.slides.retry.MOST_ATTEMPTS", 5)
    with serving(ending_at(*range(1, 20))) as url:
        give_up(url, path)
        assert size_of(partial_path(path)) == RETRIES.attempts + 5


@pytest.mark.parametrize("size", [len(CONTENT), 100])
def test_web_page_that_says_nothing_is_left_to_send(path: Path, size: int) -> None:
    class Nginx(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            whole = "Range" not in self.headers
            body = CONTENT if whole else b"<html>".ljust(100)
            self.send_response(200 if whole else 416)
            self.send_header("Content-Type", "application/zip" if whole else "text/html")
            self.send_header("Content-Length", str(len(body)))
            if size == len(CONTENT):
                self.send_header("Content-Range", f"bytes */{size}")
            self.end_headers()
            self.wfile.write(body)

    partial_path(path).write_bytes(CONTENT[:size])
    with serving(Nginx) as url:
        fetch(url, path, RETRIES)
    assert path.read_bytes() == CONTENT


def test_part_that_does_not_say_where_it_begins_is_not_used(path: Path) -> None:
    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = CONTENT[5:] if "Range" in self.headers else CONTENT
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    partial_path(path).write_bytes(CONTENT[:5])
    with serving(Silent) as url:
        fetch(url, path, RETRIES)
    assert path.read_bytes() == CONTENT


def test_disk_without_room_is_told_before_the_body(url: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(10**6, 0, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(MidnightError, match="the disk is full: 300,000 bytes are needed, 1,000 are free; make room"):
        fetch(url, path, RETRIES)
    assert not list(path.parent.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_disk_that_fills_up_on_the_way(url: str, path: Path) -> None:
    partial_path(path).symlink_to("/dev/full")
    with pytest.raises(MidnightError, match=f"{path.parent}: the disk is full") as caught:
        fetch(url, path, RETRIES)
    assert "\n" not in str(caught.value) and not path.exists()
