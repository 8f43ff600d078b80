import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midnight.demo.beer_lambert import UNITS, add_grain, colourise, draw_stain
from midnight.demo.classes import TissueClass
from midnight.demo.layout import draw_slide
from midnight.demo.render import render
from midnight.demo.scene import build_scene

CELLULAR = (TissueClass.STROMA, TissueClass.GLAND, TissueClass.LYMPHOCYTES, TissueClass.TUMOUR)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(0, 255), st.integers(0, 255))
def test_colour_is_beer_lambert(seed: int, haematoxylin: int, eosin: int) -> None:
    stain = draw_stain(rng(seed))
    got = colourise(np.full((2, 2), haematoxylin, np.uint8), np.full((2, 2), eosin, np.uint8), stain)
    amounts = np.array([haematoxylin, eosin]) / UNITS * stain.gains
    assert np.abs(got[0, 0] - stain.white * np.exp(-amounts @ stain.vectors)).max() <= 1.6


def test_stains_vary_and_are_unit_vectors() -> None:
    stains = [draw_stain(rng(seed)) for seed in range(50)]
    assert all(np.allclose(np.linalg.norm(stain.vectors, axis=1), 1) for stain in stains)
    assert np.std([stain.gains for stain in stains], 0).min() > 0.1
    assert np.ptp([stain.white for stain in stains]) < 20
    calm = draw_stain(rng(1), spread=0)
    assert np.allclose(calm.vectors, draw_stain(rng(2), spread=0).vectors) and np.allclose(calm.gains, 1)


def test_grain_is_grey_and_unbiased() -> None:
    image = np.full((700, 900, 3), 240, np.uint8)
    image[:50] = 0
    add_grain(rng(), image)
    assert (np.ptp(image, axis=2) == 0).all()
    assert image[50:].mean() == pytest.approx(240, abs=0.1) and 0.8 < image[50:].std() < 1.2
    assert image[:50].max() <= 4


@pytest.fixture(scope="module")
def piece() -> tuple[np.ndarray, np.ndarray]:
    """Class map at 0.25 µm/px and stain planes of a piece of slide of 500 µm."""
    generator = rng(4)
    classes = draw_slide(generator, (512, 512))
    return cv2.resize(classes, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST), render(
        build_scene(generator, classes), 0.25
    )


@pytest.mark.parametrize("seed", range(4))
def test_hsv_filter_takes_cellular_tissue_only(piece: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    classes, planes = piece
    image = colourise(planes[0], planes[1], draw_stain(rng(seed)))
    add_grain(rng(seed), image)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    good = (hsv[..., 0] >= 90) & (hsv[..., 1] >= 8) & (hsv[..., 2] >= 103)
    shares = {value: good[classes == value].mean() for value in TissueClass if (classes == value).any()}
    assert len(shares) == len(TissueClass)
    assert all(shares[value] > 0.7 for value in CELLULAR)
    assert shares[TissueClass.BACKGROUND] < 0.1 and shares[TissueClass.FAT] < 0.4
