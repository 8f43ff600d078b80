"""Pins a cohort: asks where its slides are, once, and writes that down as a dated manifest."""

import datetime
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from midnight.config import Cohort, Gdc, choose
from midnight.errors import ConfigError
from midnight.hashing import hash_file
from midnight.slides.exclude import leave_out
from midnight.slides.gdc_rows import gdc_slides, is_gdc_manifest, load_gdc_manifest
from midnight.slides.local import find_slides
from midnight.slides.manifest import read_header, read_manifest, write_manifest
from midnight.slides.record import Refused, Slide

logger = logging.getLogger(__name__)


@dataclass
class Choice:
    """The slides of a cohort, where they come from, and what was left out.

    Attributes:
        slides: sorted by slide_id.
        origin: header entries: query, service, data release, …
        refused: rows that can't be used.
        excluded: slides of the cohort's exclude list.
    """

    slides: list[Slide]
    origin: dict[str, object]
    refused: list[Refused]
    excluded: list[Refused] = field(default_factory=list)


def pin_manifest(name: str, cohort: Cohort, gdc: Gdc, output: Path) -> None:
    """Write the manifest of a cohort: by a query to the GDC, from a pinned manifest, or from a folder or CSV.

    Excluded and refused slides are listed with their reasons in the header.

    Args:
        name: the cohort's name, for messages and the header.
        cohort: where its slides come from.
        gdc: the service, for a cohort of source gdc without a pinned manifest.
        output: `manifest.tsv`.

    Raises:
        ConfigError: the source is wrong, or no slide is left.
        ServiceError: the service is down.
    """
    choice = _narrow(name, cohort, _choose(cohort, gdc))
    for row in choice.refused:
        logger.warning("cohort %s: %s refused: %s", name, row.name, row.reason)
    write_manifest(output, choice.slides, _header(name, cohort, choice))
    logger.info("cohort %s: %d slides, %d excluded", name, len(choice.slides), len(choice.excluded))


def planned_slides(cohort: Cohort) -> list[Slide] | None:
    """The slides that `pin_manifest` will write, where that is known without asking anyone: a pinned gdc manifest.

    Raises:
        ConfigError: the pinned manifest or the exclude list is wrong.
    """
    if cohort.source != "gdc" or not cohort.manifest:
        return None
    return _narrow(cohort.manifest, cohort, _pinned(cohort.manifest)).slides


def pinned_sources(cohort: Cohort) -> list[str]:
    """The files that the manifest is made from. A folder is not one of them: pin again when its slides change."""
    local = cohort.path if cohort.source == "local" else cohort.manifest
    paths = [Path(path).expanduser() for path in (local, cohort.exclude) if path]
    return [str(path) for path in paths if path.is_file()]


def _choose(cohort: Cohort, gdc: Gdc) -> Choice:
    return choose(cohort.source, {"local": _local, "gdc": _gdc}, "source of a cohort")(cohort, gdc)


def _local(cohort: Cohort, _: Gdc) -> Choice:
    if not cohort.path:
        raise ConfigError("a local cohort needs the key path: the folder (or CSV) of its slides")
    slides, refused = find_slides(cohort.path)
    return Choice(slides, {"query": cohort.path, "data release": "none (local)"}, refused)


def _gdc(cohort: Cohort, gdc: Gdc) -> Choice:
    return _pinned(cohort.manifest) if cohort.manifest else _query(gdc)


def _pinned(manifest: str) -> Choice:
    path = Path(manifest).expanduser()
    if is_gdc_manifest(path):
        slides, refused = load_gdc_manifest(path)
        release = "not stated (GDC manifest)"
    else:
        slides, refused = sorted(read_manifest(path), key=lambda slide: slide.slide_id), []
        release = read_header(path).get("data release", "not stated")
    digest = hash_file(path)
    return Choice(slides, {"query": f"pinned file {path.name}", "sha256": digest, "data release": release}, refused)


def _query(gdc: Gdc) -> Choice:
    from midnight.slides.gdc import GdcClient  # requests takes longer to import than all else here

    client = GdcClient(gdc)
    release = client.status()
    slides, refused = gdc_slides(client.files())
    query = json.dumps(gdc.filters, sort_keys=True)
    if not slides:
        raise ConfigError(f"{client.url}: no usable file ({len(refused)} refused) for gdc.filters {query}")
    return Choice(slides, {"query": query, "service": gdc.api, "data release": release}, refused)


def _narrow(name: str, cohort: Cohort, choice: Choice) -> Choice:
    if cohort.exclude:
        choice.slides, choice.excluded = leave_out(choice.slides, cohort.exclude)
    choice.slides = choice.slides[: cohort.limit]
    if not choice.slides:
        raise ConfigError(f"cohort {name}: no slides are left after {cohort.exclude or 'unfit rows were refused'}")
    return choice


def _header(name: str, cohort: Cohort, choice: Choice) -> dict[str, object]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    header = {"cohort": name, "source": cohort.source} | choice.origin | {"date": now}
    if cohort.limit:
        header["limit"] = cohort.limit
    sums = {"count": len(choice.slides), "bytes": sum(slide.size for slide in choice.slides)}
    header |= sums | {"excluded": len(choice.excluded), "refused": len(choice.refused)}
    header |= {f"excluded {row.name}": row.reason for row in choice.excluded}
    return header | {f"refused {number} {row.name}": row.reason for number, row in enumerate(choice.refused, 1)}
