import cv2
import numpy as np
import pytest

from midnight.config import Predrawn
from midnight.tiles.predrawn.codec import decode, encode


@pytest.fixture
def tile() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    return cv2.resize(noise, (64, 64), interpolation=cv2.INTER_CUBIC)


def test_png_is_exact(tile: np.ndarray) -> None:
    assert np.array_equal(decode(encode(tile, Predrawn(count=1, format="png"))), tile)


def test_jpeg_keeps_colours_in_their_order_and_is_better_at_higher_quality(tile: np.ndarray) -> None:
    errors, sizes = [], []
    for quality in (60, 90, 100):
        data = encode(tile, Predrawn(count=1, quality=quality))
        sizes.append(len(data))
        errors.append(np.abs(decode(data).astype(int) - tile).mean())
    red = decode(encode(np.full((16, 16, 3), (200, 20, 60), np.uint8), Predrawn(count=1)))
    assert np.abs(red.astype(int) - (200, 20, 60)).max() < 6
    assert errors == sorted(errors, reverse=True)
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("data", [b"", b"not an image"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an image"):
        decode(data)
