from pathlib import Path

import cv2
import numpy as np
import pytest

from midnight.tissue import thumbnail
from midnight.tissue.openslides import open_slide, read_rgb
from midnight.tissue.resolution import SlideError
from midnight.tissue.thumbnail import read_thumbnail
from tests.tissue.small_slides import tissue_image, write_slide


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return tissue_image(1203, 1601, [(200, 300, 700, 900)])


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory, image: np.ndarray) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / "slide.svs", image, mpp=0.5, downsamples=(4, 8))


def test_size_and_resolution(slide: Path) -> None:
    with open_slide(slide) as opened:
        found = read_thumbnail(opened, 0.5, 8.0)
    assert found.image.shape == (75, 100, 3)
    assert found.mpp == pytest.approx(0.5 * 1601 / 100)


def test_strips_give_what_one_read_gives(slide: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_slide(slide) as opened:
        whole = read_thumbnail(opened, 0.5, 8.0).image
        monkeypatch.setattr(thumbnail, "READ_PIXELS", 1 << 11)
        strips = read_thumbnail(opened, 0.5, 8.0).image
    expected = cv2.resize(image, (100, 75), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(whole.astype(int) - expected).mean() < 2.5
    assert np.abs(strips.astype(int) - expected).mean() < 2.5


def test_a_coarse_slide_is_not_scaled_up(slide: Path) -> None:
    with open_slide(slide) as opened:
        assert read_thumbnail(opened, 10.0, 8.0).image.shape == (1203, 1601, 3)


def test_memory_stays_small(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def watched(opened, location, level, size):
        sizes.append(size[0] * size[1])
        return read_rgb(opened, location, level, size)

    monkeypatch.setattr(thumbnail, "READ_PIXELS", 1 << 12)
    monkeypatch.setattr(thumbnail, "read_rgb", watched)
    with open_slide(slide) as opened:
        read_thumbnail(opened, 0.5, 8.0)
    assert max(sizes) <= 1 << 12


def test_what_is_outside_is_white(slide: Path) -> None:
    with open_slide(slide) as opened:
        pixels = read_rgb(opened, (1500, 0), 0, (200, 50))
    assert (pixels[:, 101:] == 255).all()


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such file"), (b"", "empty"), (b"not a slide at all", "not in a format")]
)
def test_what_cannot_be_opened_says_why(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "bad.svs"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SlideError, match=reason):
        open_slide(path)
