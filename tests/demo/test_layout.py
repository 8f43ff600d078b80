import numpy as np
import pytest

from midnight.demo.classes import TissueClass
from midnight.demo.layout import SLIDE_MIX, draw_disks, draw_nests, draw_regions, draw_slide, draw_tissue


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def test_regions_fill_the_area_in_the_asked_shares() -> None:
    classes = draw_regions(rng(), (1500, 1501), SLIDE_MIX, 120)
    assert classes.shape == (1500, 1501) and classes.dtype == np.uint8
    assert not (classes == TissueClass.BACKGROUND).any()
    for value, share in SLIDE_MIX.items():
        assert (classes == value).mean() == pytest.approx(share / sum(SLIDE_MIX.values()), abs=0.06)


@pytest.mark.parametrize("seed", range(5))
def test_tissue_leaves_a_rim_of_background(seed: int) -> None:
    tissue = draw_tissue(rng(seed), (800, 800))
    assert tissue.mean() == pytest.approx(0.68, abs=0.05)
    rim = np.concatenate([tissue[0], tissue[-1], tissue[:, 0], tissue[:, -1]])
    assert rim.mean() < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_slides_have_background_and_several_classes(seed: int) -> None:
    classes = draw_slide(rng(seed), (1000, 1000))
    assert len(np.unique(classes)) >= 5
    assert np.array_equal(classes, draw_slide(rng(seed), (1000, 1000)))


def test_nests_and_disks_cover_what_they_should() -> None:
    assert draw_nests(rng(), (500, 500), 50, 0.4).mean() == pytest.approx(0.4, abs=0.02)
    covered = draw_disks(rng(), (600, 600), 112, 45).mean()
    assert covered == pytest.approx(np.pi * 45**2 / (0.866 * 112**2), rel=0.25)
