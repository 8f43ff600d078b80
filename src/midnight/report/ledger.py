"""The slide ledger: which slides were used, which were quarantined and why."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from midnight.report.scores import finite
from midnight.slides.manifest import read_refused
from midnight.slides.quarantine import read_statuses
from midnight.tiles.draw.lost_slides import DAMAGED, FILE, read_quarantine
from midnight.tissue.index import read_index


@dataclass(frozen=True)
class Quarantined:
    """A slide that was left out, at which stage, why."""

    cohort: str
    slide_id: str
    stage: str
    reason: str


@dataclass(frozen=True)
class CohortCount:
    """Sums of one cohort; `size` is bytes on disk; `unavailable` are those of the quarantined that were so for now."""

    cohort: str
    ok: int
    quarantined: int
    size: int
    tissue_mm2: float
    unavailable: int = 0

    @property
    def total(self) -> int:
        """Slides of the manifest."""
        return self.ok + self.quarantined


@dataclass(frozen=True)
class Ledger:
    """Counts per cohort, every quarantined slide, and the slides that are used but for damaged places.

    `refused` are files or rows that never became slides of a cohort: no count holds them.
    """

    cohorts: tuple[CohortCount, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    damaged: tuple[Quarantined, ...] = ()
    refused: tuple[Quarantined, ...] = ()

    @property
    def ok(self) -> int:
        """Slides that training could use."""
        return sum(cohort.ok for cohort in self.cohorts)

    @property
    def unavailable(self) -> int:
        """Slides that could not be had for now: the next run tries them again."""
        return sum(cohort.unavailable for cohort in self.cohorts)

    @property
    def size(self) -> int:
        """Bytes of the slides that were fetched."""
        return sum(cohort.size for cohort in self.cohorts)

    @property
    def tissue_mm2(self) -> float:
        """Tissue area over all cohorts."""
        return sum(cohort.tissue_mm2 for cohort in self.cohorts)


@dataclass
class _Slide:
    ok: bool
    stage: str = ""
    reason: str = ""
    size: int = 0
    tissue_mm2: float = 0.0
    unavailable: bool = False


def read_ledger(
    slides: Iterable[Path], tissue: Iterable[Path], runs: Iterable[Path] = (), manifests: Iterable[Path] = ()
) -> Ledger:
    """Join the per-shard slide tables with the tissue indices; cohorts are the files' folders.

    Args:
        slides: `slides/{cohort}/{shard}.tsv`.
        tissue: `tissue/{cohort}/index.parquet`.
        runs: folders of training runs, with a record of the slides that turned out unreadable if there were any.
        manifests: `cohorts/{cohort}/manifest.tsv`, whose headers say what was refused.

    Raises:
        MidnightError: a table can't be read.
    """
    found: dict[str, dict[str, _Slide]] = {}
    for path in slides:
        cohort = found.setdefault(Path(path).parent.name, {})
        cohort |= _read_slides(Path(path))
    for path in tissue:
        cohort = found.setdefault(Path(path).parent.name, {})
        for slide_id, entry in _read_tissue(Path(path)).items():
            _merge(cohort, slide_id, entry)
    runs = list(runs)
    for folder in runs:
        for lost in read_quarantine(Path(folder) / FILE):
            cohort = found.get(lost.cohort, {})
            if lost.slide_id in cohort:
                _merge(cohort, lost.slide_id, _Slide(False, f"training {Path(folder).name}", lost.reason))
    refused = tuple(itertools.chain.from_iterable(_read_refused(Path(path)) for path in manifests))
    return replace(_ledger(found), damaged=_damaged(found, [Path(folder) for folder in runs]), refused=refused)


def _read_refused(manifest: Path) -> list[Quarantined]:
    return [Quarantined(manifest.parent.name, row.name, "pinning", row.reason) for row in read_refused(manifest)]


def _damaged(found: dict[str, dict[str, _Slide]], runs: Sequence[Path]) -> tuple[Quarantined, ...]:
    """Slides that are damaged in parts, each once, by the first run that met it."""
    met: dict[tuple[str, str], Quarantined] = {}
    for folder in runs:
        for slide in read_quarantine(folder / DAMAGED):
            known = found.get(slide.cohort, {}).get(slide.slide_id)
            if known and known.ok:
                entry = Quarantined(slide.cohort, slide.slide_id, f"training {folder.name}", slide.reason)
                met.setdefault((slide.cohort, slide.slide_id), entry)
    return tuple(met[key] for key in sorted(met))


def _merge(cohort: dict[str, _Slide], slide_id: str, entry: _Slide) -> None:
    known = cohort.get(slide_id)
    if known is None:
        cohort[slide_id] = entry
    elif known.ok:
        entry.size = known.size
        cohort[slide_id] = entry


def _read_slides(path: Path) -> dict[str, _Slide]:
    return {
        row.slide_id: _Slide(row.ok, "fetching", row.reason, row.bytes, unavailable=row.unavailable)
        for row in read_statuses(path)
    }


def _read_tissue(path: Path) -> dict[str, _Slide]:
    return {
        record.slide_id: _Slide(record.ok, "tissue", record.reason, 0, finite(record.tissue_mm2) or 0.0)
        for record in read_index(path)
    }


def _ledger(found: dict[str, dict[str, _Slide]]) -> Ledger:
    cohorts = [_count(name, list(slides.values())) for name, slides in sorted(found.items())]
    quarantined = [
        Quarantined(name, slide_id, slide.stage, slide.reason or "no reason given")
        for name, slides in sorted(found.items())
        for slide_id, slide in sorted(slides.items())
        if not slide.ok
    ]
    return Ledger(tuple(cohorts), tuple(quarantined))


def _count(name: str, slides: Sequence[_Slide]) -> CohortCount:
    ok = [slide for slide in slides if slide.ok]
    area = math.fsum(slide.tissue_mm2 for slide in ok)
    later = sum(slide.unavailable for slide in slides)
    return CohortCount(name, len(ok), len(slides) - len(ok), sum(slide.size for slide in slides), area, later)
