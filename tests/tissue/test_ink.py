from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from midnight.tissue.ink import find_ink
from midnight.tissue.openslides import open_slide
from midnight.tissue.thumbnail import read_thumbnail
from tests.tissue.small_slides import tissue_image

# Transmittance of inks in R, G, B, as seen on real slides.
INKS = {"red": (0.85, 0.12, 0.14), "green": (0.25, 0.7, 0.6), "blue": (0.15, 0.45, 0.8), "black": (0.12, 0.1, 0.12)}


def field(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / "fields" / f"{name}.png").convert("RGB")).copy()


def with_stroke(image: np.ndarray, ink: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The image with a 30 px stroke across, and where it is."""
    stroke = np.zeros(image.shape[:2], np.uint8)
    cv2.line(stroke, (20, 30), (image.shape[1] - 20, image.shape[0] - 30), 1, 30)
    amount = cv2.GaussianBlur(stroke.astype(np.float32), (0, 0), 2)[..., None]
    return (image * np.power(ink, amount)).astype(np.uint8), stroke.astype(bool)


@pytest.mark.parametrize("ink", INKS)
def test_a_stroke_on_glass_and_tissue_is_found_and_little_else(ink: str) -> None:
    image = tissue_image(300, 400, [(60, 60, 180, 200)])
    marked, stroke = with_stroke(image, INKS[ink])
    found = find_ink(marked, 8.0)
    inside = cv2.erode(stroke.astype(np.uint8), np.ones((9, 9))).astype(bool)
    near = cv2.dilate(stroke.astype(np.uint8), np.ones((41, 41))).astype(bool)
    assert found[inside].mean() > 0.97
    assert found[~near].mean() < 0.01


def test_there_is_no_ink_on_a_clean_slide() -> None:
    assert not find_ink(tissue_image(300, 400, [(60, 60, 180, 200)]), 8.0).any()


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("no-tissue-red-pen", 0.7),
        ("no-tissue-green-pen", 0.75),
        ("tcga-red-pen", 0.25),
        ("very-low-nuclei-score-red-pen-level1", 0.4),
        ("medium-nuclei-score-green-pen-level1", 0.45),
        ("diagnostic-slide-thumb-rgb", 0.35),
    ],
)
def test_real_pen_marks_are_found(real_data: Path, name: str, least: float) -> None:
    assert find_ink(field(real_data, name), 8.0).mean() > least


def test_real_blue_ink_is_found_on_a_whole_slide(real_data: Path) -> None:
    image = field(real_data, "wsi-blue-pen")
    blue = (image[..., 0] < 110) & (image[..., 2] > 150)
    assert blue.any()
    assert find_ink(image, 8.0)[blue].mean() > 0.9


@pytest.mark.parametrize(
    "name", ["tcga-lung-rgb", "high-nuclei-score-level2", "low-nuclei-score-level1", "no-tissue", "no-tissue2"]
)
def test_real_tissue_and_glass_are_no_ink(real_data: Path, name: str) -> None:
    # These fields are finer than a thumbnail: taken for one, single nuclei would be as wide as strokes.
    assert find_ink(field(real_data, name), 4.0).mean() < 0.002


def test_real_thumbnails_without_marks_have_no_ink(real_data: Path) -> None:
    for name, mpp in (("cmu-1-small-region", 0.499), ("tcga-cr-7395-01a-01-ts1", 0.5)):
        with open_slide(real_data / "wsi" / f"{name}.svs") as slide:
            thumbnail = read_thumbnail(slide, mpp, 8.0)
        assert find_ink(thumbnail.image, thumbnail.mpp).mean() < 0.002


def test_real_labelled_tissue_is_no_ink(real_data: Path) -> None:
    paths = sorted((real_data / "labelled" / "colorectal-cancer").glob("*/*.jpg"))
    shares = {path.name: find_ink(np.asarray(Image.open(path)), 8.0).mean() for path in paths}
    assert len(shares) > 50
    assert {name: share for name, share in shares.items() if share > 0.02} == {}
