import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from midnight.demo import gdc_service
from midnight.demo.gdc_query import QueryError, byte_range, matches, pick, values
from midnight.demo.gdc_service import GdcService, Hooks, start
from tests.waiting import comes_true

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    rows = []
    for number in range(12):
        name = f"slide-{number:02d}.svs"
        (folder / name).write_bytes(CONTENT)
        row = {"file_id": f"id-{number:02d}", "file_name": name, "file_size": len(CONTENT), "truncate_to": None}
        row |= {"md5sum": hashlib.md5(CONTENT, usedforsecurity=False).hexdigest(), "case_id": f"c{number % 3}"}
        row |= {"project_id": "DEMO-A" if number % 2 else "DEMO-B", "sample_type": "Primary Tumor"}
        rows.append(row | {"experimental_strategy": "Diagnostic Slide"})
    rows[1]["truncate_to"] = 1000
    rows[2]["access"] = "controlled"
    rows[3]["file_name"] = "../slides/slide-03.svs"
    (folder / "catalogue.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture
def service(folder: Path) -> Iterator[GdcService]:
    with GdcService(folder) as running:
        yield running


def get(service: GdcService, path: str, **arguments: Any) -> requests.Response:
    return requests.get(service.url + path, timeout=10, **arguments)


def post(service: GdcService, **query: Any) -> requests.Response:
    return requests.post(service.url + "/files", json=query, timeout=10)


def test_status(service: GdcService) -> None:
    answer = get(service, "/status").json()
    assert answer["status"] == "OK" and answer["data_release"] == "Demo Release 1.0"
    assert service.url.startswith("http://127.0.0.1:")


def test_default_page_has_ten_rows(service: GdcService) -> None:
    data = post(service).json()["data"]
    assert len(data["hits"]) == 10
    assert data["pagination"] == {"count": 10, "total": 12, "size": 10, "from": 0, "sort": "", "page": 1, "pages": 2}
    assert len(get(service, "/files", params={"from": 10}).json()["data"]["hits"]) == 2


def test_get_and_post_answer_the_same(service: GdcService) -> None:
    filters = {
        "op": "and",
        "content": [
            {"op": "in", "content": {"field": "cases.project.project_id", "value": ["DEMO-A"]}},
            {"op": "=", "content": {"field": "files.cases.submitter_id", "value": "c0"}},
        ],
    }
    query = {"filters": filters, "fields": "file_id,cases.project.project_id", "sort": "file_id:desc"}
    posted = post(service, **query).json()
    asked = get(service, "/files", params=query | {"filters": json.dumps(filters)}).json()
    assert posted == asked
    case = [{"project": {"project_id": "DEMO-A"}}]
    assert posted["data"]["hits"] == [
        {"id": "id-09", "file_id": "id-09", "cases": case},
        {"id": "id-03", "file_id": "id-03", "cases": case},
    ]


def test_manifest_ignores_size(service: GdcService) -> None:
    answer = post(service, return_type="manifest", size=1)
    lines = answer.text.splitlines()
    assert answer.headers["Content-Type"] == "text/tab-separated-values"
    assert lines[0].split("\t") == ["id", "filename", "md5", "size", "state"] and len(lines) == 13


@pytest.mark.parametrize(
    "query", [{"size": -1}, {"from": "x"}, {"filters": "{"}, {"filters": {"op": "in"}}, {"filters": {"op": "near"}}]
)
def test_queries_that_make_no_sense(service: GdcService, query: dict[str, Any]) -> None:
    answer = post(service, **query)
    assert answer.status_code == 400 and answer.json()["message"]


def test_operators() -> None:
    item = {"a": [{"b": 1}, {"b": 2}], "c": "x"}
    assert values(item, "a.b") == [1, 2] and values(item, "a.z") == []
    assert pick(item, ["a.b"]) == {"a": [{"b": 1}, {"b": 2}]}

    def test(operator: str, field: str, value: Any) -> bool:
        return matches(item, {"op": operator, "content": {"field": field, "value": value}})

    assert test("in", "a.b", [2, 3]) and not test("in", "a.b", [3])
    assert test("=", "c", "x") and test("!=", "c", "y") and not test("exclude", "a.b", ["1"])
    right, wrong = ({"op": "=", "content": {"field": "c", "value": value}} for value in "xy")
    assert matches(item, {"op": "or", "content": [wrong, right]})
    assert not matches(item, {"op": "and", "content": [wrong, right]})
    with pytest.raises(QueryError, match="unknown op"):
        test("like", "c", "x")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("bytes=0-", (0, 100)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-500", (90, 100)),
        ("bytes=-5", (95, 100)),
    ],
)
def test_byte_range(header: str, expected: tuple[int, int] | None) -> None:
    assert byte_range(header, 100) == expected


def test_download_whole_and_in_part(service: GdcService) -> None:
    whole = get(service, "/data/id-00")
    assert whole.status_code == 200 and whole.content == CONTENT
    part = get(service, "/data/id-00", headers={"Range": "bytes=100-"})
    assert part.status_code == 206 and part.content == CONTENT[100:]
    assert part.headers["Content-Range"] == f"bytes 100-{len(CONTENT) - 1}/{len(CONTENT)}"
    assert get(service, "/data/id-00", headers={"Range": f"bytes={len(CONTENT)}-"}).status_code == 416


def test_truncated_body_announces_its_whole_length(service: GdcService) -> None:
    with get(service, "/data/id-01", stream=True) as answer:
        assert answer.headers["Content-Length"] == str(len(CONTENT))
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            _ = answer.content
    with get(service, "/data/id-01", stream=True, headers={"Range": "bytes=1000-"}) as answer:
        assert answer.status_code == 206
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            _ = answer.content


@pytest.mark.parametrize(
    ("path", "code"),
    [("/data/id-02", 403), ("/data/id-03", 404), ("/data/none", 404), ("/data/../catalogue.json", 404), ("/x", 404)],
)
def test_what_is_not_given_out(service: GdcService, path: str, code: int) -> None:
    assert get(service, path).status_code == code


def test_hooks(folder: Path) -> None:
    with GdcService(folder, Hooks(fail=1, fail_code=429, retry_after="7", ignore_range=True)) as service:
        answer = get(service, "/status")
        assert answer.status_code == 429 and answer.headers["Retry-After"] == "7"
        assert get(service, "/status").status_code == 200
        assert get(service, "/data/id-00", headers={"Range": "bytes=5-"}).content == CONTENT
        assert [request.path for request in service.requests] == ["/status", "/status", "/data/id-00"]


def test_catalogue_may_come_later_and_change(folder: Path, tmp_path: Path) -> None:
    catalogue = folder / "catalogue.json"
    text = catalogue.read_text()
    catalogue.unlink()
    with start(folder, tmp_path / "url") as service:
        assert (tmp_path / "url").read_text() == service.url + "\n"
        assert get(service, "/status").status_code == 200
        assert post(service).status_code == 503
        catalogue.write_text(text)
        assert post(service).json()["data"]["pagination"]["total"] == 12
        catalogue.write_text("[]")
        assert post(service).json()["data"]["pagination"]["total"] == 0


def launch(folder: Path, url_file: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "midnight.demo.gdc_service", "--folder", str(folder), "--url-file", str(url_file)]
    process = subprocess.Popen([*command, *more])
    assert comes_true(url_file.exists, process, 20)
    return process


def test_process_ends_with_its_parent(folder: Path, tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process = launch(folder, tmp_path / "url", "--parent", str(parent.pid))
    try:
        url = (tmp_path / "url").read_text().strip()
        assert requests.get(url + "/status", timeout=10).ok
        assert process.poll() is None
        parent.kill()  # not yet waited for: a zombie does not count as alive
        assert process.wait(10) == 0
        assert not (tmp_path / "url").exists()
        with pytest.raises(requests.ConnectionError):
            requests.get(url + "/status", timeout=10)
    finally:
        process.kill()
        process.wait()
        parent.wait()


def test_process_ends_by_sigterm(folder: Path, tmp_path: Path) -> None:
    process = launch(folder, tmp_path / "url", "--parent", str(os.getpid()))
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_dead_parent_ends_it_at_once() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    stopping = gdc_service.threading.Event()
    gdc_service.wait_for_parent(gone.pid, stopping)
    assert stopping.is_set()
