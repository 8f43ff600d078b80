"""Client of the Genomic Data Commons' HTTP API (docs.gdc.cancer.gov/API), or of what speaks its protocol."""

import functools
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import requests

from midnight.config import Gdc
from midnight.errors import ConfigError, ServiceError
from midnight.slides.endpoint import api_url, is_loopback, read_token
from midnight.slides.retry import ExhaustedError, RefusedError, StoppedError, TransientError, retried
from midnight.slides.transfer import Pace, blocks, cause, check_transient, file_blocks

logger = logging.getLogger(__name__)

FIELDS = (
    "file_id",
    "file_name",
    "md5sum",
    "file_size",
    "state",
    "access",
    "cases.submitter_id",
    "cases.project.project_id",
    "cases.samples.sample_type",
)
GONE = frozenset((404, 410))
TOKEN = "X-Auth-Token"  # noqa: S105 - the header's name


class Session(requests.Session):
    """A session that never carries the token to another host, which requests does for this header."""

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Called on every redirect."""
        super().rebuild_auth(prepared_request, response)
        old, new = str(response.request.url), str(prepared_request.url)
        if self.should_strip_auth(old, new):
            prepared_request.headers.pop(TOKEN, None)


class GdcClient:
    """The three calls that slides need: `status`, `files`, `open`. Safe to share among threads.

    Attributes:
        url: the address, variables expanded.
        gdc: settings of retries, pauses, time-outs.
        stop: set it, and every thread ends at its next block or pause.
    """

    def __init__(self, gdc: Gdc):
        self.gdc = gdc
        self.url = api_url(gdc.api)
        self.stop = threading.Event()
        self._token = read_token(gdc.token_file, self.url)
        self._local = threading.local()

    def status(self, attempts: int | None = None) -> str:
        """The data release that the service names.

        Raises:
            ServiceError: it is down.
        """
        answer = self._json("GET", "/status", None, attempts)
        return str(answer.get("data_release") or "not stated")

    def files(self) -> list[dict[str, Any]]:
        """All rows of `/files` that fulfil `gdc.filters`, page by page, in the order of their ids.

        Raises:
            ServiceError: the service is down or its pages don't add up.
            ConfigError: no filters, or the service doesn't understand them.
        """
        hits: dict[str, dict[str, Any]] = {}
        start, total = 0, 1
        while start < total:
            page, total = self._page(start)
            hits |= {json.dumps(hit, sort_keys=True): hit for hit in page}
            start += len(page)
            if not page:
                break
        if len(hits) < total:
            raise ServiceError(f"{self.url}/files: gave {len(hits)} of {total} rows; its index is changing, try again")
        return list(hits.values())

    def _page(self, start: int) -> tuple[list[dict[str, Any]], int]:
        query = {
            "filters": query_filters(self.gdc.filters),
            "fields": ",".join(FIELDS),
            "format": "JSON",
            "sort": "file_id:asc",
            "size": self.gdc.page_size,
            "from": start,
        }
        answer = self._json("POST", "/files", query)
        if answer.get("warnings"):
            logger.warning("%s/files: %s", self.url, json.dumps(answer["warnings"])[:500])
        try:
            data = answer["data"]
            return [dict(hit) for hit in data["hits"]], int(data["pagination"]["total"])
        except (KeyError, TypeError, ValueError):
            raise ServiceError(f"{self.url}/files: the answer has no hits and pagination; is gdc.api right?") from None

    def open(self, file_id: str, offset: int, access: str = "") -> requests.Response:
        """Begin to download a file from byte `offset` on; one attempt. The caller closes the response.

        Args:
            file_id: the file.
            offset: bytes that are here.
            access: "open" or "controlled" where the manifest says it; only for the message of a refusal.

        Raises:
            TransientError: worth another attempt.
            RefusedError: the service won't give this file.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = self._send("GET", f"/data/{file_id}", headers=headers)
        if response.status_code in (200, 206, 416):
            return response
        with response:
            raise self._refused(response, access)

    def blocks(self, response: requests.Response) -> Iterator[bytes]:
        """The body of a slide, block by block; its beginning is looked at before this returns.

        Raises:
            RefusedError: a page or another text came instead.
            TransientError: the connection broke, no byte came for `gdc.timeout` seconds, or fewer than
                `gdc.least_rate` a second.
            StoppedError: `stop` was set.
        """
        return self._stoppable(file_blocks(response, self._pace(), binary=True))

    def _stoppable(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block in blocks:
            if self.stop.is_set():
                raise StoppedError
            yield block

    def _pace(self) -> Pace:
        return Pace(self.gdc.least_rate, self.gdc.timeout)

    def sleep(self, seconds: float) -> None:
        """Wait.

        Raises:
            StoppedError: `stop` was set.
        """
        if self.stop.wait(seconds):
            raise StoppedError

    def _refused(self, response: requests.Response, access: str = "") -> RefusedError:
        code = response.status_code
        if code in GONE:
            return RefusedError(f"HTTP {code}: the service does not have it (any more)", gone=True)
        if code == 401 and self._token:
            return RefusedError("HTTP 401: the token is not accepted; get a new one for gdc.token_file")
        if code in (401, 403) and access == "controlled":
            return RefusedError(f"HTTP {code}: access is controlled; set gdc.token_file to a token that may read it")
        said = self._said(response)
        also = ", though the manifest says that access is open" if access == "open" and code in (401, 403) else ""
        return RefusedError(f"HTTP {code}{also}" + (f": {said}" if said else ""))

    def _said(self, response: requests.Response) -> str:
        """What the service says to its refusal, on one line."""
        try:
            answer = json.loads(next(blocks(response, self._pace()), b""))
        except (TransientError, ValueError):
            return ""
        message = answer.get("message") or answer.get("error") or "" if isinstance(answer, dict) else ""
        return " ".join(str(message).split())[:200]

    def _json(self, method: str, path: str, body: Any, attempts: int | None = None) -> dict[str, Any]:
        allowed = attempts or self.gdc.retries

        def tell(failures: int, error: TransientError) -> None:
            logger.info("%s%s: attempt %d of %d: %s", self.url, path, failures, allowed, error)

        answer = functools.partial(self._answer, method, path, body)
        try:
            return retried(answer, allowed, self.gdc.backoff, tell, sleep=self.sleep)
        except ExhaustedError as error:
            raise self.down(str(error), error.attempts) from error
        except RefusedError as error:
            raise ConfigError(f"{self.url}{path}: {error}; check gdc.api and gdc.filters") from error

    def down(self, cause: str, attempts: int) -> ServiceError:
        """The error for a service that doesn't answer."""
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        return ServiceError(
            f"{self.url}: no useful answer after {times}: {cause}; check the network and gdc.api, then run again: "
            "nothing that was downloaded is lost"
        )

    def _answer(self, method: str, path: str, body: Any) -> dict[str, Any]:
        with self._send(method, path, json=body) as response:
            if response.status_code != 200:
                raise self._refused(response)
            try:
                answer = json.loads(b"".join(blocks(response, self._pace())))
            except ValueError as error:
                raise TransientError("the answer is not JSON") from error
        if not isinstance(answer, dict):
            raise TransientError("the answer is not a JSON object")
        return answer

    def _send(self, method: str, path: str, **arguments: Any) -> requests.Response:
        headers = {"Accept-Encoding": "identity"} | arguments.pop("headers", {})
        token = {TOKEN: self._token} if self._token else {}
        try:
            response = self._session().request(
                method,
                self.url + path,
                headers=headers | token,
                timeout=self.gdc.timeout,
                stream=True,
                **arguments,
            )
        except requests.RequestException as error:
            raise TransientError(cause(error, self.gdc.timeout)) from error
        check_transient(response)
        return response

    def _session(self) -> Session:
        if not hasattr(self._local, "session"):
            self._local.session = Session()
            # a proxy can't reach this machine's loopback
            self._local.session.trust_env = not is_loopback(self.url)
        return self._local.session


def query_filters(filters: Mapping[str, list[str]]) -> dict[str, Any]:
    """The GDC's nested filter for `field: allowed values`, all of which must hold.

    Raises:
        ConfigError: there are none, which would ask for every file of the GDC.
    """
    if not filters:
        raise ConfigError("gdc.filters: is empty; name at least one field and its values")
    parts = [{"op": "in", "content": {"field": name, "value": list(values)}} for name, values in filters.items()]
    return {"op": "and", "content": parts}
