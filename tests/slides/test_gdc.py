import logging
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from midnight.config import Gdc
from midnight.demo.gdc_service import GdcService
from midnight.errors import ConfigError, ServiceError
from midnight.slides.gdc import GdcClient, query_filters
from midnight.slides.retry import RefusedError

Serve = Callable[..., GdcService]
MakeGdc = Callable[..., Gdc]


@pytest.mark.parametrize("page_size", [1, 2, 5, 100])
def test_all_pages_are_read(serve: Serve, make_gdc: MakeGdc, page_size: int) -> None:
    service = serve()
    hits = GdcClient(make_gdc(service, page_size=page_size)).files()
    assert [hit["file_id"] for hit in hits] == sorted(hit["file_id"] for hit in hits)
    assert len({hit["file_id"] for hit in hits}) == 5
    assert hits[0]["cases"][0]["project"] == {"project_id": "TCGA-LAML"}
    queries = [request for request in service.requests if request.path == "/files"]
    assert len(queries) == -(-5 // page_size)
    assert [query.body["from"] for query in queries] == list(range(0, 5, page_size))
    assert {query.method for query in queries} == {"POST"}


def test_filters_are_nested_and_work(serve: Serve, make_gdc: MakeGdc) -> None:
    assert query_filters({"a.b": ["x", "y"]}) == {
        "op": "and",
        "content": [{"op": "in", "content": {"field": "a.b", "value": ["x", "y"]}}],
    }
    with pytest.raises(ConfigError, match=r"gdc\.filters"):
        query_filters({})
    service = serve()
    filters = {"cases.submitter_id": ["TCGA-AB-0001", "TCGA-AB-0003"], "data_format": ["SVS"]}
    hits = GdcClient(make_gdc(service, filters=filters)).files()
    assert sorted(hit["cases"][0]["submitter_id"] for hit in hits) == ["TCGA-AB-0001", "TCGA-AB-0003"]
    assert GdcClient(make_gdc(service, filters={"data_format": ["BAM"]})).files() == []


@pytest.mark.parametrize("code", [429, 500, 503])
def test_transient_answers_are_retried(serve: Serve, make_gdc: MakeGdc, code: int) -> None:
    service = serve(fail=2, fail_code=code)
    assert GdcClient(make_gdc(service)).status() == "Demo Release 1.0"
    assert len(service.requests) == 3


def test_retry_after_is_honoured(serve: Serve, make_gdc: MakeGdc) -> None:
    service = serve(fail=1, fail_code=429, retry_after="1")
    start = time.monotonic()
    GdcClient(make_gdc(service)).status()
    assert time.monotonic() - start >= 1


def test_service_that_stays_down_gives_one_line(serve: Serve, make_gdc: MakeGdc) -> None:
    service = serve(fail=99)
    with pytest.raises(ServiceError, match="HTTP 503") as caught:
        GdcClient(make_gdc(service)).status()
    assert service.url in str(caught.value) and "run again" in str(caught.value)
    assert len(service.requests) == 3


def test_nobody_listening(make_gdc: MakeGdc) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(ServiceError, match="Connection refused") as caught:
        GdcClient(Gdc(api=url, retries=2, backoff=0.01)).status()
    assert url in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_silent_service_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ServiceError, match=r"no byte for 0\.2 s"):
            GdcClient(Gdc(api=url, retries=2, backoff=0.01, timeout=0.2)).status()


def test_refusals_are_not_retried(serve: Serve, make_gdc: MakeGdc) -> None:
    service = serve(fail=1, fail_code=400)
    with pytest.raises(ConfigError, match="told to fail"):
        GdcClient(make_gdc(service)).files()
    assert len(service.requests) == 1


def test_token_is_sent_but_never_logged(
    serve: Serve, make_gdc: MakeGdc, tmp_path: Path, caplog: pytest.LogCaptureFixture, edit: Callable[..., dict]
) -> None:
    caplog.set_level(logging.DEBUG)
    row = edit(0, access="controlled")
    service = serve(token="s3cret-token", fail=2)
    (tmp_path / "token").write_text("s3cret-token\n")
    client = GdcClient(make_gdc(service, token_file=str(tmp_path / "token")))
    client.status()
    with client.open(row["file_id"], 0) as response:
        assert response.status_code == 200
    assert {request.headers.get("X-Auth-Token") for request in service.requests} == {"s3cret-token"}
    assert caplog.records and "s3cret" not in caplog.text
    assert "s3cret" not in repr(client)
    with pytest.raises(RefusedError, match="HTTP 403"):
        GdcClient(make_gdc(service)).open(row["file_id"], 0)


def test_token_does_not_follow_a_redirect_to_another_host(serve: Serve, make_gdc: MakeGdc, tmp_path: Path) -> None:
    elsewhere = serve()
    service = serve(redirect=elsewhere.url)
    (tmp_path / "token").write_text("s3cret-token")
    client = GdcClient(make_gdc(service, token_file=str(tmp_path / "token")))
    file_id = client.files()[0]["file_id"]
    with client.open(file_id, 0) as response:
        assert response.status_code == 200
    assert service.requests[-1].headers["X-Auth-Token"] == "s3cret-token"
    assert [request.headers.get("X-Auth-Token") for request in elsewhere.requests] == [None]


def test_answers_that_trickle_are_cut_too() -> None:
    """Also those that are no files: a page of the query, the status."""
    ended = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            while not ended.wait(0.01):
                self.wfile.write(b" ")

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        client = GdcClient(Gdc(api=f"http://127.0.0.1:{server.server_address[1]}", timeout=0.3, least_rate=1e6))
        with pytest.raises(ServiceError, match="less than the least rate"):
            client.status(attempts=1)
        ended.set()
        server.shutdown()
        thread.join()
