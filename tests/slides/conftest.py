"""A folder of small files that pass for slides, and the real GDC service over it."""

import hashlib
import json
import random
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from midnight.config import Cohort, Gdc
from midnight.demo.gdc_service import GdcService, Hooks
from midnight.slides.fetch import fetch_shard
from midnight.slides.pin import pin_manifest
from midnight.slides.quarantine import SlideStatus, read_statuses

SIZE = 300_000


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """Five files of 300,000 random bytes with their catalogue."""
    folder = tmp_path / "service"
    folder.mkdir()
    rng = random.Random(7)
    rows = []
    for number in range(5):
        content = rng.randbytes(SIZE)
        case = f"TCGA-AB-{number:04d}"
        name = f"{case}-01Z-00-DX1.{number}.svs"
        (folder / name).write_bytes(content)
        row = {
            "file_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
            "file_name": name,
            "md5sum": hashlib.md5(content, usedforsecurity=False).hexdigest(),
            "file_size": SIZE,
            "project_id": "TCGA-LAML",
            "case_id": case,
            "sample_type": "Primary Tumor",
            "experimental_strategy": "Diagnostic Slide",
            "truncate_to": None,
        }
        rows.append(row)
    (folder / "catalogue.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture
def edit(catalogue: Path) -> Callable[..., dict[str, Any]]:
    """Change one row of the catalogue; gives the row."""

    def change(number: int, **values: Any) -> dict[str, Any]:
        path = catalogue / "catalogue.json"
        rows = json.loads(path.read_text())
        rows[number] |= values
        path.write_text(json.dumps(rows))
        return rows[number]

    return change


@pytest.fixture
def serve(catalogue: Path) -> Iterator[Callable[..., GdcService]]:
    """Start a service with the given hooks; stopped at the end."""
    running = []

    def start(**hooks: Any) -> GdcService:
        running.append(GdcService(catalogue, Hooks(**hooks)))
        return running[-1]

    yield start
    for service in running:
        service.stop()


def settings(service: GdcService, **values: Any) -> Gdc:
    """Settings with short pauses."""
    return Gdc(**({"api": service.url, "retries": 3, "backoff": 0.01, "timeout": 5.0, "parallel": 4} | values))


class Fetcher:
    """Pins and fetches a cohort of one shard below a folder."""

    def __init__(self, folder: Path):
        self.manifest = folder / "manifest.tsv"
        self.raw = folder / "raw"
        self.shard = folder / "shards" / "0001.tsv"
        self.slides = folder / "slides" / "0001.tsv"

    def pin(self, gdc: Gdc, **cohort: Any) -> None:
        pin_manifest("test", Cohort(**({"source": "gdc"} | cohort)), gdc, self.manifest)

    def fetch(self, gdc: Gdc, source: str = "gdc") -> list[SlideStatus]:
        cohort = Cohort(source=source)  # type: ignore[arg-type]
        fetch_shard(self.manifest, "0001", 64, cohort, gdc, self.raw, self.shard, self.slides)
        return read_statuses(self.slides)


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    return Fetcher(tmp_path / "out")


@pytest.fixture
def make_gdc() -> Callable[..., Gdc]:
    return settings
