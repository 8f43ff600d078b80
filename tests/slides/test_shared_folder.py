"""One folder of slides for several pipelines at a time, and one that can't be written."""

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from midnight.config import Gdc
from midnight.demo.gdc_service import GdcService
from midnight.errors import MidnightError
from midnight.slides.fetch import fetch_gdc
from midnight.slides.manifest import read_manifest
from midnight.slides.verified import sidecar
from tests.read_only import read_only
from tests.waiting import comes_true

Serve = Callable[..., GdcService]
MakeGdc = Callable[..., Gdc]


def test_two_pipelines_fetch_each_slide_once_between_them(
    serve: Serve, make_gdc: MakeGdc, fetcher: Any, catalogue: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    service = serve()
    gdc = make_gdc(service)
    fetcher.pin(gdc)
    service.requests.clear()
    slides = read_manifest(fetcher.manifest)[:2]
    gate, original = threading.Event(), service.body_end

    def held(entry: Any) -> int | None:
        gate.wait(60)
        return original(entry)

    service.body_end = held  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(fetch_gdc, slides, gdc, fetcher.raw)
        assert comes_true(lambda: len(service.requests) == 2)
        second = pool.submit(fetch_gdc, slides, gdc, fetcher.raw)
        waits = comes_true(lambda: caplog.text.count("waits for process") == 2 or len(service.requests) > 2)
        gate.set()
        assert all(status.ok for job in (first, second) for status in job.result())
    assert waits and len(service.requests) == 2
    assert f"waits for process {os.getpid()}" in caplog.text
    for slide in slides:
        folder = fetcher.raw / slide.file_id
        assert (folder / slide.file_name).read_bytes() == (catalogue / slide.file_name).read_bytes()
        assert {path.name for path in folder.iterdir()} == {slide.file_name, sidecar(folder / slide.file_name).name}


def test_complete_mirror_that_cannot_be_written_works(
    serve: Serve, make_gdc: MakeGdc, fetcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    fetcher.pin(make_gdc(service))
    paths = [Path(status.path) for status in fetcher.fetch(make_gdc(service))]
    for path in paths[1:]:
        sidecar(path).unlink()
    service.requests.clear()
    before = sorted(fetcher.raw.rglob("*"))
    with read_only(fetcher.raw):
        assert all(status.ok for status in fetcher.fetch(make_gdc(service)))
        monkeypatch.setattr("midnight.slides.verified.hash_file", lambda *_: pytest.fail("read again"))
        assert all(status.ok for status in fetcher.fetch(make_gdc(service)))
    assert sorted(fetcher.raw.rglob("*")) == before and service.requests == []


def test_incomplete_mirror_is_one_line(serve: Serve, make_gdc: MakeGdc, fetcher: Any) -> None:
    service = serve()
    fetcher.pin(make_gdc(service))
    Path(fetcher.fetch(make_gdc(service))[0].path).unlink()
    with read_only(fetcher.raw), pytest.raises(MidnightError, match="Read-only file system") as caught:
        fetcher.fetch(make_gdc(service))
    assert str(fetcher.raw) in str(caught.value) and "\n" not in str(caught.value)
