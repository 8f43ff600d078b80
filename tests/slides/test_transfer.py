from collections.abc import Iterator

import pytest
import requests

from midnight.slides.retry import TransientError
from midnight.slides.transfer import Pace, page_kind

TIFF = b"II*\x00" + bytes(range(256))


def response(kind: str = "") -> requests.Response:
    made = requests.Response()
    made.status_code = 200
    made.headers["Content-Type"] = kind
    return made


def test_every_window_must_bring_its_share() -> None:
    pace = Pace(least=100.0, window=10.0)
    for _ in range(5):
        pace.add(900, 1.0)
        pace.add(101, 9.0)
    pace.add(998, 9.0)
    with pytest.raises(TransientError, match=r"only 99\.8 bytes/s for 10 s, less than the least rate of 100"):
        pace.add(0, 1.0)


def test_a_short_window_is_not_judged_and_no_rate_is_no_limit() -> None:
    pace = Pace(least=1e9, window=10.0)
    pace.add(1, 9.9)
    with pytest.raises(TransientError, match="less than the least rate"):
        pace.add(0, 0.1)
    Pace(least=0.0, window=10.0).add(0, 1e6)


def cases() -> Iterator[tuple[str, bytes, bool, str]]:
    yield "", TIFF, True, ""
    yield "application/octet-stream", TIFF, True, ""
    yield "text/html", TIFF, False, "an HTML page"
    yield "", b"  <HTML><head>", False, "an HTML page"
    yield "application/json; charset=utf-8", b"{}", False, "a JSON document"
    yield "", b"<?xml version='1.0'?>", False, "an XML document"
    yield "text/plain", "service unavailable, é".encode(), True, "a text"
    yield "text/csv", b"a,b\n1,2\n", False, ""
    yield "", b"", True, ""
    yield "", "é".encode() * 300, True, "a text"


@pytest.mark.parametrize(("kind", "head", "binary", "is_called"), cases())
def test_pages_are_told_from_files(kind: str, head: bytes, binary: bool, is_called: str) -> None:
    assert page_kind(response(kind), head, binary) == is_called
