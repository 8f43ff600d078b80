"""A service on loopback that speaks the GDC's protocol over a folder of slides.

    python -m midnight.demo.gdc_service --folder FOLDER --url-file FILE --parent PID

The folder holds slides and `catalogue.json`, a list of {file_id, file_name, md5sum, file_size, project_id, case_id,
sample_type, experimental_strategy, truncate_to, stored}; with `truncate_to` set, every body ends at that byte of the
file and the connection is closed; with `stored` set, the service has only so many bytes of it and says so. The
catalogue may appear later than the service: it is read again whenever it changes.
"""

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from midnight import logs
from midnight.atomic import write_text
from midnight.demo.gdc_query import QueryError, answer, byte_range, document, manifest
from midnight.errors import MidnightError
from midnight.outputs import FORCE, check_file, text_with

logger = logging.getLogger(__name__)

BLOCK = 1 << 16
MOST_BODY = 1 << 24
TRICKLE = 0.01
LOGIN = b"<html><head><title>Network login</title></head><body>Please log in.</body></html>"
STATUS = {
    "commit": "midnight-demo",
    "data_release": "Demo Release 1.0",
    "data_release_version": {"major": 1, "minor": 0, "release_date": "2025-04-07"},
    "status": "OK",
    "tag": "demo",
    "version": 1,
}


@dataclass
class Hooks:
    """Ways to misbehave, for tests.

    Attributes:
        fail: how many requests to `fail_path…` are answered with `fail_code`.
        fail_code: such as 503 or 429.
        fail_path: requests whose path begins so.
        retry_after: `Retry-After` of those answers.
        ignore_range: answer 200 with the whole file to a Range request.
        cut_once: end the first body of each file after so many bytes.
        trickle_once: send the first body of each file byte by byte from there on, 100 a second.
        page: requests whose path begins so are answered with a login page and status 200.
        stall_at: stop sending at that byte of a file, without closing, until the service stops.
        token: what `X-Auth-Token` must be for files whose access is controlled.
        redirect: address that `/data` requests are sent on to.
    """

    fail: int = 0
    fail_code: int = 503
    fail_path: str = "/"
    retry_after: str = ""
    ignore_range: bool = False
    cut_once: int | None = None
    trickle_once: int | None = None
    page: str = ""
    stall_at: int | None = None
    token: str | None = None
    redirect: str = ""


@dataclass
class Request:
    """What a request was, for tests."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any = None


@dataclass
class Catalogue:
    """`catalogue.json`, read again when it changes."""

    folder: Path
    _stamp: tuple[int, int] = (0, 0)
    _entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def entries(self) -> dict[str, dict[str, Any]]:
        """Rows by file id.

        Raises:
            FileNotFoundError: there is none yet.
        """
        path = self.folder / "catalogue.json"
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp != self._stamp:
            rows = json.loads(path.read_text(encoding="utf-8"))
            self._entries, self._stamp = {row["file_id"]: row for row in rows}, stamp
        return self._entries


class GdcService:
    """The running service; a context manager that stops it.

    Attributes:
        url: its address.
        requests: every request so far, for tests.
    """

    def __init__(self, folder: Path, hooks: Hooks | None = None):
        self.hooks = hooks or Hooks()
        self.catalogue = Catalogue(Path(folder))
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._cut: set[str] = set()
        self._trickled: set[str] = set()
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="gdc", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the service and free its port."""
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> "GdcService":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def should_fail(self, path: str) -> bool:
        """Whether this request is one of those that `hooks.fail` asks for."""
        with self._lock:
            if self.hooks.fail <= 0 or not path.startswith(self.hooks.fail_path):
                return False
            self.hooks.fail -= 1
            return True

    def trickles_at(self, entry: Mapping[str, Any]) -> int | None:
        """The byte of the file from which its body trickles; None = it doesn't."""
        with self._lock:
            if self.hooks.trickle_once is None or entry["file_id"] in self._trickled:
                return None
            self._trickled.add(entry["file_id"])
            return self.hooks.trickle_once

    def body_end(self, entry: Mapping[str, Any]) -> int | None:
        """The byte of the file at which its body is cut off; None = not."""
        with self._lock:
            if self.hooks.cut_once is not None and entry["file_id"] not in self._cut:
                self._cut.add(entry["file_id"])
                return self.hooks.cut_once
        return entry.get("truncate_to")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, service: GdcService):
        self.service = service
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in the middle is no error; anything else is logged."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            logger.exception("request of %s failed", client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """`/status`, `/files?…`, `/data/{id}`."""
        url = urlsplit(self.path)
        self._route(url.path, dict(parse_qsl(url.query)))

    def do_POST(self) -> None:
        """`/files` with the query as JSON."""
        length = int(self.headers.get("Content-Length") or 0)
        if length > MOST_BODY:
            return self._message(413, "the query is too long")
        try:
            query = json.loads(self.rfile.read(length) or b"{}")
        except ValueError:
            query = None
        if not isinstance(query, dict):
            return self._message(400, "the body is not a JSON object")
        return self._route(urlsplit(self.path).path, query)

    def log_message(self, format: str, *args: Any) -> None:
        """Into our log."""
        logger.debug(format, *args)

    def _route(self, path: str, query: dict[str, Any]) -> None:
        service = self.server.service
        service.requests.append(Request(self.command, path, dict(self.headers), query))
        path = path.removeprefix("/v0")
        if service.should_fail(path):
            return self._message(service.hooks.fail_code, "told to fail", {"Retry-After": service.hooks.retry_after})
        if service.hooks.page and path.startswith(service.hooks.page):
            return self._send(200, LOGIN, "text/html")
        if path == "/status":
            return self._send(200, json.dumps(STATUS).encode())
        try:
            entries = service.catalogue.entries()
        except FileNotFoundError:
            return self._message(503, "there is no catalogue.json yet")
        if path == "/files":
            return self._files([document(entry) for entry in entries.values()], query)
        if path.startswith("/data/") and self.command == "GET":
            return self._data(entries.get(path.removeprefix("/data/")))
        return self._message(404, f"no such page: {path}")

    def _files(self, documents: list[dict[str, Any]], query: dict[str, Any]) -> None:
        try:
            if query.get("return_type") == "manifest":
                return self._send(200, manifest(documents, query).encode(), "text/tab-separated-values")
            return self._send(200, json.dumps(answer(documents, query)).encode())
        except QueryError as error:
            return self._message(400, str(error))

    def _data(self, entry: dict[str, Any] | None) -> None:
        hooks = self.server.service.hooks
        if hooks.redirect:
            return self._message(302, "elsewhere", {"Location": hooks.redirect + self.path})
        if entry is None:
            return self._message(404, "no such file")
        allowed = hooks.token is not None and self.headers.get("X-Auth-Token") == hooks.token
        if entry.get("access", "open") != "open" and not allowed:
            return self._message(403, "access to this file is controlled")
        path = self.server.service.catalogue.folder / entry["file_name"]
        if path.name != entry["file_name"] or not path.is_file():
            return self._message(404, "the file is not there")
        return self._send_file(path, entry)

    def _send_file(self, path: Path, entry: dict[str, Any]) -> None:
        size = min(path.stat().st_size, entry.get("stored") or sys.maxsize)
        ranged = "" if self.server.service.hooks.ignore_range else self.headers.get("Range", "")
        try:
            span = byte_range(ranged, size)
        except ValueError:
            return self._message(416, "no such bytes", {"Content-Range": f"bytes */{size}"})
        start, stop = span or (0, size)
        self.send_response(206 if span else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Disposition", f"attachment; filename={path.name}")
        self.send_header("Content-Length", str(stop - start))
        if span:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.end_headers()
        self._send_bytes(path, start, stop, entry)
        return None

    def _send_bytes(self, path: Path, start: int, stop: int, entry: dict[str, Any]) -> None:
        service = self.server.service
        cut, stall, slow = service.body_end(entry), service.hooks.stall_at, service.trickles_at(entry)
        end = min(limit for limit in (stop, cut, stall) if limit is not None)
        with path.open("rb") as file:
            file.seek(start)
            while start < end and (block := file.read(_step(start, end, slow))):
                self.wfile.write(block)
                start += len(block)
                if slow is not None and start > slow and service.stopping.wait(TRICKLE):
                    return
        if start >= stop:
            return
        self.close_connection = True
        if stall is not None and start >= stall:
            self.wfile.flush()
            service.stopping.wait()

    def _message(self, code: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        if code >= 400 and self.command == "POST":
            self.close_connection = True
        self._send(code, json.dumps({"message": text}).encode(), headers=headers)

    def _send(
        self, code: int, body: bytes, kind: str = "application/json", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _step(start: int, end: int, slow: int | None) -> int:
    """Bytes to send next: one at a time from byte `slow` on."""
    if slow is None:
        return min(BLOCK, end - start)
    return 1 if start >= slow else min(BLOCK, end - start, slow - start)


def start(folder: Path, url_file: Path, hooks: Hooks | None = None) -> GdcService:
    """Start the service on a free port of 127.0.0.1 and, once it answers, write its address to `url_file`.

    Args:
        folder: slides and `catalogue.json`.
        url_file: written atomically.
        hooks: misbehaviour, for tests.

    Raises:
        MidnightError: `url_file` can't be written.
    """
    service = GdcService(folder, hooks)
    try:
        write_text(url_file, service.url + "\n")
    except MidnightError:
        service.stop()
        raise
    return service


def wait_for_parent(pid: int, stopping: threading.Event, seconds: float = 0.5) -> None:
    """Set `stopping` when the process `pid` has ended (a process that took over its number does not count)."""
    import psutil

    try:
        parent = psutil.Process(pid)
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            if stopping.wait(seconds):
                return
    except psutil.NoSuchProcess:
        logger.info("the parent process %d has ended", pid)
    stopping.set()


def main(arguments: list[str] | None = None) -> None:
    """Run the service until SIGTERM, Ctrl-C, or until the parent has ended."""
    parser = argparse.ArgumentParser(prog="python -m midnight.demo.gdc_service", description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="slides and catalogue.json")
    parser.add_argument("--url-file", type=Path, required=True, help="the address is written here")
    parser.add_argument("--parent", type=int, help="end when this process has ended")
    parser.add_argument("--force", action="store_true", help=FORCE)
    options = parser.parse_args(arguments)
    logs.setup()
    inputs = (path for path in options.folder.rglob("*") if path.is_file())
    try:
        check_file(options.url_file, inputs, text_with("http://127.0.0.1:"), options.force)
    except MidnightError as error:
        sys.exit(f"error: {error}")
    stopping = threading.Event()

    def end(number: int, _: FrameType | None) -> None:
        logger.info("ends by signal %d", number)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with start(options.folder, options.url_file) as service:
        logger.info("serves %s at %s", options.folder, service.url)
        if options.parent:
            threading.Thread(target=wait_for_parent, args=(options.parent, stopping), daemon=True).start()
        stopping.wait()
    options.url_file.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
