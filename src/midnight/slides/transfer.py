"""What every download needs of HTTP: how an answer begins, its body, and why it failed, in a few words."""

import re
from collections.abc import Iterator
from typing import Any

import requests
import urllib3

from midnight.slides.retry import TRANSIENT_CODES, TransientError, retry_after_seconds

BLOCK = 1 << 20


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


def blocks(response: requests.Response, timeout: float) -> Iterator[bytes]:
    """The body, block by block.

    Raises:
        TransientError: the connection broke, or no byte came for `timeout` seconds.
    """
    try:
        # read1, since iter_content drops what it has gathered of a block when the connection breaks
        while block := response.raw.read1(BLOCK, decode_content=False):
            yield block
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise TransientError(cause(error, timeout), served=True) from error


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
