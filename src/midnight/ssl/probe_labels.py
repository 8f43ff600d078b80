"""By which labels the probe's tiles are told apart, and which slides are on which side.

The label of a slide is its project where a manifest names one, else its cohort; slides of one patient (where a manifest
names the patient) are on one side. Where fewer than two labels have slides of two patients, as in a cohort of one kind,
the label is the slide itself, and a slide's tiles are on one side or the other by their position.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from midnight.config.recipe import Tiles
from midnight.errors import MidnightError
from midnight.slides.manifest import read_manifest
from midnight.tiles.drawn import DrawnTile
from midnight.tiles.sampler import windows_of
from midnight.tissue.index import TissueRecord, training_slides

# Labels where slides are the labels: enough for a curve, few enough for several tiles of each.
MOST_SLIDES = 32


@dataclass(frozen=True)
class LabelledSlide:
    """A slide that can give tiles: its label and the patient it is of."""

    record: TissueRecord
    label: str
    patient: str


@dataclass(frozen=True)
class LabelPlan:
    """What is drawn from where.

    kind: what the labels are; labels: their names; sources: slides to draw from, one label's or one side's each.
    """

    kind: Literal["project", "slide"]
    labels: tuple[str, ...]
    sources: tuple[tuple[TissueRecord, ...], ...]

    def place(self, tile: DrawnTile, slides: Sequence[TissueRecord]) -> tuple[int, bool] | None:
        """A tile's label (number in `labels`) and whether it is on the test side; None if it is on neither.

        Args:
            tile: its cohort is the number of its source.
            slides: what `tile.slide` counts.
        """
        if self.kind == "project":
            label, test = divmod(tile.cohort, 2)
            return label, bool(test)
        record = slides[tile.slide]
        left, right = tile.x, tile.x + round(tile.pixels.shape[1] * tile.mpp / record.mpp)
        middle = tissue_middle(record)
        return None if left < middle < right else (tile.cohort, left >= middle)


def plan_labels(cohorts: Mapping[str, Path], manifests: Mapping[str, Path], tiles: Tiles, seed: int) -> LabelPlan:
    """The labels that slides allow (see above).

    Args:
        cohorts: tissue index by cohort.
        manifests: manifest by cohort; may lack some or all.
        tiles: the recipe's settings; slides that can't give such tiles are left out.
        seed: decides which patients are on which side.

    Raises:
        MidnightError: an index or a manifest can't be read, or there are not two slides.
    """
    slides = [slide for name, index in cohorts.items() for slide in _labelled(name, index, manifests.get(name), tiles)]
    rng = np.random.default_rng(seed)
    by_label: dict[str, dict[str, list[TissueRecord]]] = {}
    for slide in slides:
        by_label.setdefault(slide.label, {}).setdefault(slide.patient, []).append(slide.record)
    usable = {label: patients for label, patients in sorted(by_label.items()) if len(patients) > 1}
    if len(usable) > 1:
        sources = [side for patients in usable.values() for side in _split(patients, rng)]
        return LabelPlan("project", tuple(usable), tuple(sources))
    records = sorted((slide.record for slide in slides), key=lambda record: (record.slide_id, record.path))
    chosen = sorted(rng.permutation(len(records))[:MOST_SLIDES])
    if len(chosen) < 2:
        raise MidnightError(f"{len(chosen)} of the slides can give tiles; labels need at least 2")
    few = [records[number] for number in chosen]
    return LabelPlan("slide", tuple(record.slide_id for record in few), tuple((record,) for record in few))


def _labelled(cohort: str, index: Path, manifest: Path | None, tiles: Tiles) -> Iterable[LabelledSlide]:
    known = {slide.slide_id: slide for slide in read_manifest(manifest)} if manifest else {}
    for record in training_slides(Path(index)):
        if windows_of(record, tiles):
            slide = known.get(record.slide_id)
            label, patient = (slide.project_id, slide.case_id) if slide else ("", "")
            yield LabelledSlide(record, label or cohort, f"{cohort}/{patient or record.slide_id}")


def _split(
    patients: Mapping[str, list[TissueRecord]], rng: np.random.Generator
) -> tuple[tuple[TissueRecord, ...], tuple[TissueRecord, ...]]:
    """Slides for training and for the test, of half of the patients each (the odd one for training)."""
    names = sorted(patients)
    test = {names[number] for number in rng.permutation(len(names))[: len(names) // 2]}
    sides = [tuple(r for name in names if (name in test) is side for r in patients[name]) for side in (False, True)]
    return sides[0], sides[1]


@functools.lru_cache(maxsize=MOST_SLIDES)
def tissue_middle(record: TissueRecord) -> float:
    """The level-0 x that has half of a slide's tissue on either side.

    Raises:
        MidnightError: the slide has no tissue.
    """
    columns = record.mask().sum(axis=0).cumsum()
    if columns[-1] == 0:
        raise MidnightError(f"slide {record.slide_id}: its mask has no tissue")
    middle = int(np.searchsorted(columns, columns[-1] / 2)) + 1
    return middle * record.width / record.mask_width
