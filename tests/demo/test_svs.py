from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest

from midnight.demo.svs import Scanner, write_svs
from midnight.errors import MidnightError


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(0))
    return cv2.resize(rng.integers(60, 250, (40, 50, 3)).astype(np.uint8), (2500, 2000), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(("mpp", "power", "tile"), [(0.25, 40, 240), (0.5, 20, 256)])
def test_openslide_reads_it_as_aperio(tmp_path: Path, image: np.ndarray, mpp: float, power: int, tile: int) -> None:
    path = tmp_path / "a.svs"
    write_svs(path, image, Scanner(mpp, power, tile, "SS1"))
    with openslide.OpenSlide(path) as slide:
        properties = slide.properties
        assert properties["openslide.vendor"] == "aperio"
        assert float(properties["openslide.mpp-x"]) == float(properties["openslide.mpp-y"]) == mpp
        assert int(properties["openslide.objective-power"]) == power
        assert int(properties["openslide.level[0].tile-width"]) == tile
        assert slide.level_dimensions == ((2500, 2000), (625, 500))
        assert slide.level_downsamples == pytest.approx((1, 4))
        assert set(slide.associated_images) == {"thumbnail"}
        read = np.asarray(slide.read_region((0, 0), 0, (2500, 2000)).convert("RGB"))
        small = np.asarray(slide.read_region((0, 0), 1, (625, 500)).convert("RGB"))
    assert np.abs(read.astype(int) - image).mean() < 4
    expected = cv2.resize(image, (625, 500), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - expected).mean() < 6


def test_same_bytes_each_time(tmp_path: Path, image: np.ndarray) -> None:
    for name in ("a.svs", "b.svs"):
        write_svs(tmp_path / name, image, Scanner(0.25, 40, 256, "SS1"))
    assert (tmp_path / "a.svs").read_bytes() == (tmp_path / "b.svs").read_bytes()


def test_nothing_left_when_it_can_not_be_written(tmp_path: Path, image: np.ndarray) -> None:
    (tmp_path / "a.svs").mkdir()
    with pytest.raises(MidnightError, match=r"a\.svs"):
        write_svs(tmp_path / "a.svs", image, Scanner(0.25, 40, 256, "SS1"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.svs"]
