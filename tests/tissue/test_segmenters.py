from pathlib import Path

import numpy as np
import pytest

from midnight.config import Tissue
from midnight.tissue.segmenters import SEGMENTERS, segment
from tests.tissue.small_slides import tissue_image
from tests.tissue.test_ink import INKS, field, with_stroke

pytestmark = pytest.mark.parametrize("segmenter", sorted(SEGMENTERS))


def share(image: np.ndarray, segmenter: str) -> float:
    return float(segment(image, 8.0, Tissue(segmenter=segmenter)).mean())


def test_boxes_of_tissue_are_found_exactly(segmenter: str) -> None:
    truth = np.zeros((300, 400), bool)
    truth[40:200, 50:150] = truth[120:260, 200:360] = True
    found = segment(
        tissue_image(300, 400, [(40, 50, 160, 100), (120, 200, 140, 160)]), 8.0, Tissue(segmenter=segmenter)
    )
    assert (found & truth).sum() / (found | truth).sum() > 0.95


@pytest.mark.parametrize("ink", INKS)
def test_ink_is_not_tissue(segmenter: str, ink: str) -> None:
    marked, _ = with_stroke(np.full((300, 400, 3), 244, np.uint8), INKS[ink])
    assert share(marked, segmenter) < 0.01


def test_an_empty_slide_has_no_tissue(segmenter: str) -> None:
    noise = np.random.default_rng(0).integers(-3, 4, (300, 400, 3))
    assert share((np.full((300, 400, 3), 242) + noise).astype(np.uint8), segmenter) == 0


def test_a_slide_full_of_tissue_is_all_tissue(segmenter: str) -> None:
    assert share(tissue_image(200, 200, [(0, 0, 200, 200)]), segmenter) > 0.97


@pytest.mark.parametrize(
    "name", ["no-tissue-red-pen", "no-tissue-green-pen", "no-tissue", "no-tissue2", "almost-white-1"]
)
def test_real_fields_without_tissue(real_data: Path, segmenter: str, name: str) -> None:
    assert share(field(real_data, name), segmenter) < 0.04


def test_real_marked_tissue_is_found_beside_the_ink(real_data: Path, segmenter: str) -> None:
    image = field(real_data, "tcga-red-pen")
    found = segment(image, 8.0, Tissue(segmenter=segmenter))
    red = (image[..., 0] > 150) & (image[..., 1] < 60) & (image[..., 2] < 60)
    assert red.mean() > 0.08
    assert found[red].mean() < 0.01
    assert found[150:400, 250:].mean() > 0.75
    green = field(real_data, "medium-nuclei-score-green-pen-level1")
    found = segment(green, 8.0, Tissue(segmenter=segmenter))
    assert found[:200].mean() < 0.05
    assert found[330:, 250:].mean() > 0.8


@pytest.mark.parametrize(("name", "least"), [("tcga-lung-rgb", 0.7), ("high-nuclei-score-level2", 0.12)])
def test_real_tissue_is_found(real_data: Path, segmenter: str, name: str, least: float) -> None:
    assert share(field(real_data, name), segmenter) > least
