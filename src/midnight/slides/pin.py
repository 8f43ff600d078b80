"""Pins a cohort: asks where its slides are, once, and writes that down as a dated manifest."""

import datetime
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from midnight.config import Cohort, Gdc, choose
from midnight.errors import ConfigError, MidnightError
from midnight.hashing import hash_file
from midnight.outputs import check_file
from midnight.slides.exclude import leave_out
from midnight.slides.files import files_of
from midnight.slides.gdc_rows import gdc_slides, is_gdc_manifest, load_gdc_manifest
from midnight.slides.local import find_slides, look_from_outside
from midnight.slides.manifest import read_header, read_manifest, refused_entries, write_manifest
from midnight.slides.record import Refused, Slide

logger = logging.getLogger(__name__)

LOOK = "slides from outside"


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


def pin_manifest(name: str, cohort: Cohort, gdc: Gdc, output: Path, look: str = "") -> None:
    """Write the manifest of a cohort: by a query to the GDC, from a pinned manifest, or from a folder or CSV.

    Excluded and refused slides are listed with their reasons in the header.

    Args:
        name: the cohort's name, for messages and the header.
        cohort: where its slides come from.
        gdc: the service, for a cohort of source gdc without a pinned manifest.
        output: `manifest.tsv`.
        look: of a local cohort's slides from outside (see `local_look`), for the header.

    Raises:
        ConfigError: the source is wrong, or no slide is left.
        ServiceError: the service is down.
    """
    choice = _narrow(name, cohort, _choose(cohort, gdc))
    if look:
        choice.origin[LOOK] = look
    for row in choice.refused:
        logger.warning("cohort %s: %s refused: %s", name, row.name, row.reason)
    write_manifest(output, choice.slides, _header(name, cohort, choice))
    logger.info("cohort %s: %d slides, %d excluded", name, len(choice.slides), len(choice.excluded))


def local_look(cohort: Cohort, manifest: str | Path) -> str:
    """Changes when a slide of a local cohort is added, removed or replaced.

    Where the slides are not there (a disk that is away, an archived folder) it is what it was when the manifest was
    written: what has been made from them stays. Empty for other cohorts.

    Raises:
        ConfigError: the cohort's CSV, or the manifest, can't be read.
    """
    if cohort.source != "local" or not cohort.path:
        return ""
    if look := look_from_outside(cohort.path):
        return look
    return read_header(manifest).get(LOOK, "") if Path(manifest).is_file() else ""


def check_pin(cohort: Cohort, name: str, configfile: Path, output: Path, force: bool) -> None:
    """Refuse to write a manifest over anything but an earlier manifest of the same cohort.

    Raises:
        MidnightError: `output` is one of the files that are read, or something else and not to be replaced (`force`).
        ConfigError: the cohort's CSV can't be read.
    """
    check_file(Path(output), _files_read(cohort, configfile), lambda path: _is_pin(path, name), force)


def _files_read(cohort: Cohort, configfile: Path) -> Iterator[str | Path]:
    yield configfile
    yield from (Path(path).expanduser() for path in (cohort.path, cohort.manifest, cohort.exclude) if path)
    if cohort.source == "local" and cohort.path:
        for slide in find_slides(cohort.path)[0]:
            yield from files_of(Path(slide.extra["path"]))


def _is_pin(path: Path, name: str) -> bool:
    """Whether a file is a manifest of this cohort as it was written, and not one of its shards."""
    try:
        header, count = read_header(path), len(read_manifest(path))
    except MidnightError:
        return False
    return header.get("cohort") == name and "shard" not in header and header.get("count") == str(count)


def planned_slides(cohort: Cohort) -> list[Slide] | None:
    """The slides that `pin_manifest` will write, where that is known without asking anyone: a pinned gdc manifest.

    Raises:
        ConfigError: the pinned manifest or the exclude list is wrong.
    """
    if cohort.source != "gdc" or not cohort.manifest:
        return None
    return _narrow(cohort.manifest, cohort, _pinned(cohort.manifest)).slides


def pinned_sources(cohort: Cohort) -> list[str]:
    """The files that the manifest is made from. A folder is not one of them: see `local_look`."""
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
    return header | refused_entries(choice.refused)
