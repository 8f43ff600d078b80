"""By which labels the probe's tiles are told apart, and which slides are on which side.

The label of a slide is its project where a manifest names one, else its cohort; slides of one patient (where a manifest
names the patient) are on one side. Where fewer than two labels have slides of two patients, as in a cohort of one kind,
there are no labels: to know which slide a tile is of takes its stain, and rewards a model for what it should not see.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from midnight.config.recipe import Tiles
from midnight.errors import MidnightError
from midnight.slides.manifest import read_manifest
from midnight.tiles.draw.sampler import windows_of
from midnight.tissue.index import TissueRecord, training_slides

# Slides of a probe without labels: enough for a curve, few enough for several tiles of each.
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

    kind: what the labels are; labels: their names; sources: slides to draw from: each label's for training and for the
    test or, without labels, one slide each.
    """

    kind: Literal["project", "none"]
    labels: tuple[str, ...]
    sources: tuple[tuple[TissueRecord, ...], ...]

    def place(self, source: int) -> tuple[int, bool]:
        """The label (number in `labels`) of a source's tiles and whether they are on the test side."""
        label, test = divmod(source, 2)
        return (label, bool(test)) if self.kind == "project" else (0, False)


def plan_labels(cohorts: Mapping[str, Path], manifests: Mapping[str, Path], tiles: Tiles, seed: int) -> LabelPlan:
    """The labels that slides allow (see above).

    Args:
        cohorts: tissue index by cohort.
        manifests: manifest by cohort; may lack some or all.
        tiles: the recipe's settings; slides that can't give such tiles are left out.
        seed: decides which patients are on which side.

    Raises:
        MidnightError: an index or a manifest can't be read, or no slide can give tiles.
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
    if not chosen:
        raise MidnightError("none of the slides can give tiles")
    return LabelPlan("none", (), tuple((records[number],) for number in chosen))


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
