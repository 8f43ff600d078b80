"""A service on loopback that stands for the pages where data sets are found."""

import gzip
import hashlib
import io
import json
import zipfile
from pathlib import Path

from midnight.demo.gdc_service import GdcService, Hooks
from midnight.evaluate.prepare.fetch import Retries
from midnight.evaluate.prepare.resources import Resource

RETRIES = Retries(attempts=3, pause=0.01, timeout=5.0)
LABELS = bytes(range(256)) * 40


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def zipped(names: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in names.items():
            file.writestr(name, content)
    return buffer.getvalue()


class Site:
    """The service and what it has."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.service = GdcService(folder, Hooks())
        self.folder = folder
        self._resources: dict[str, Resource] = {}
        images = {f"photos/{kind}/{number}.png": bytes([number]) * 5000 for kind in "ab" for number in range(1, 4)}
        self.put("photos.zip", zipped(images), "photos.zip")
        self.put("more.zip", zipped({"more/1.png": b"one" * 999, "__MACOSX/more/1.png": b"junk"}), "more.zip")
        self.put("labels.h5.gz", gzip.compress(LABELS), "labels.h5", md5(LABELS))

    def put(self, file_name: str, content: bytes, name: str, published: str | None = None) -> None:
        """Serve a file; the published md5 is that of the content unless given."""
        (self.folder / file_name).write_bytes(content)
        url = f"{self.service.url}/data/{file_name}"
        self._resources[name] = Resource(name, url, published or md5(content), file_name != name)
        rows = [{"file_id": path.name, "file_name": path.name} for path in self.folder.iterdir()]
        (self.folder / "catalogue.json").write_text(json.dumps(rows))

    @property
    def resources(self) -> list[Resource]:
        """What eva's class would say."""
        return list(self._resources.values())

    def asked(self) -> list[str]:
        """Names of files in the order of the requests so far, which are forgotten."""
        paths = [request.path.removeprefix("/data/") for request in self.service.requests]
        self.service.requests.clear()
        return paths
