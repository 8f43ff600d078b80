"""What every download needs of HTTP: how an answer begins, its body, and why it failed, in a few words."""

import codecs
import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import requests
import urllib3

from midnight.slides.retry import TRANSIENT_CODES, RefusedError, TransientError, retry_after_seconds

BLOCK = 1 << 20
SNIFFED = 512
TITLE = re.compile(rb"<title[^>]*>([^<]{1,200})", re.IGNORECASE)


@dataclass
class Pace:
    """How fast a body comes, over windows of time spent waiting for it.

    Attributes:
        least: bytes per second that every window must bring.
        window: its length in seconds.
    """

    least: float
    window: float
    _bytes: int = 0
    _seconds: float = 0.0

    def add(self, count: int, seconds: float) -> None:
        """`count` bytes came, after `seconds` of waiting.

        Raises:
            TransientError: a window was slower than allowed.
        """
        self._bytes, self._seconds = self._bytes + count, self._seconds + seconds
        if self._seconds < self.window:
            return
        rate = self._bytes / self._seconds
        if rate < self.least:
            text = f"only {rate:.3g} bytes/s for {self._seconds:.3g} s, less than the least rate of {self.least:g}"
            raise TransientError(text, served=True)
        self._bytes, self._seconds = 0, 0.0


def check_transient(response: requests.Response) -> None:
    """Close an answer that asks to come again later.

    Raises:
        TransientError: it is one; with the pause that it wishes.
    """
    if response.status_code in TRANSIENT_CODES:
        with response:
            wait = retry_after_seconds(response.headers.get("Retry-After"))
            raise TransientError(f"HTTP {response.status_code}", wait)


def first_byte(response: requests.Response) -> int:
    """The byte of the file at which the body begins; -1 if it is a part that doesn't say which."""
    if response.status_code != 206:
        return 0
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def total_bytes(response: requests.Response) -> int | None:
    """Bytes of the whole file, where the service says it."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return None
    # only a whole file's Content-Length is that of the file
    length = response.headers.get("Content-Length", "") if response.status_code == 200 else ""
    text = response.headers.get("Content-Range", "").rpartition("/")[2] or length
    return int(text) if text.isdecimal() else None


def file_blocks(response: requests.Response, pace: Pace, binary: bool = False) -> Iterator[bytes]:
    """The body of an answer that should be a file, block by block; its beginning is looked at before this returns.

    Args:
        response: the answer.
        pace: how fast it must come.
        binary: whether a text can't be the file either.

    Raises:
        RefusedError: a page came instead.
        TransientError: see `blocks`.
    """
    body = blocks(response, pace)
    first = next(body, b"")
    if page := page_kind(response, first if first_byte(response) == 0 else b"", binary):
        raise RefusedError(
            f"{page} came instead of the file; has it moved, is a limit reached, or does a proxy ask for a login?"
        )
    return itertools.chain([first], body)


def page_kind(response: requests.Response, head: bytes, binary: bool) -> str:
    """What a body is that is no file: "an HTML page", with its title, … ; empty where it may be one.

    Args:
        response: the answer; its Content-Type counts.
        head: how the body begins; empty if the body begins within the file.
        binary: whether any text is no file.
    """
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    start = head[:SNIFFED].lstrip().lower()
    if kind in ("text/html", "application/xhtml+xml") or start.startswith((b"<!doctype html", b"<html")):
        title = TITLE.search(head)
        said = " ".join(title[1].decode("utf-8", "replace").split()) if title else ""
        return "an HTML page" + (f" ({said!r})" if said else "")
    if kind in ("application/xml", "text/xml") or start.startswith(b"<?xml"):
        return "an XML document"
    if kind == "application/json":
        return "a JSON document"
    return "a text" if binary and head and _is_text(head[:SNIFFED]) else ""


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in text)


def blocks(response: requests.Response, pace: Pace) -> Iterator[bytes]:
    """The body, block by block.

    Raises:
        TransientError: the connection broke, no byte came for as long as a time-out, or too few did.
    """
    try:
        while True:
            start = time.monotonic()
            # read1, since iter_content drops what it has gathered of a block when the connection breaks
            block = response.raw.read1(BLOCK, decode_content=False)
            waited = time.monotonic() - start
            if not block:
                return
            yield block
            pace.add(len(block), waited)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise TransientError(cause(error, pace.window), served=True) from error


def cause(error: Exception, timeout: float) -> str:
    """What went wrong in a few words; the full text of urllib3's errors repeats itself over several lines."""
    inner: Any = error
    last: BaseException = error
    while isinstance(inner, BaseException):
        last = inner
        reason = getattr(inner, "reason", None)
        inner = next((item for item in (reason, *reversed(inner.args)) if isinstance(item, BaseException)), None)
    text = " ".join(str(last).split()).rsplit(": ", 1)[-1]
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError) or "timed out" in text.lower():
        return f"no byte for {timeout:g} s"
    if "IncompleteRead" in text:
        return "the service closed the connection early"
    return f"{type(error).__name__}: {text[:200]}"
