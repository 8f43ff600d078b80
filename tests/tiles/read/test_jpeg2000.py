"""JPEG 2000 tiles show what OpenSlide shows, and damaged ones are refused."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from midnight.demo.svs import Scanner, describe
from midnight.tiles.read.jpeg2000 import RGB, YCBCR, decode
from midnight.tissue.resolution import SlideError

SIDE = 64
ANYTHING = Scanner(0.25, 40, SIDE, "SS0000")
# 32 × 32 px, lossless, chroma of half the width: Y = 60 + 2x + 3y, Cb = 100 + x + 3y, Cr = 180 - x - 2y.
HALF_CHROMA = base64.b64decode(
    "/0//UQAvAAAAAAAgAAAAIAAAAAAAAAAAAAAAIAAAACAAAAAAAAAAAAADBwEBBwIBBwIB/1IADAAAAAEAAgQEAAH/XAAKQEBISFBISFD/ZAAlAAFD"
    "cmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjD/kAAKAAAAAADLAAH/k8+0tBIn/11GQT1+z7reYxuYhcNkh5HHB02dR/FVVi5Vly/R29iK"
    "q/tpVvGrRMpyR8+0aC4z7iuhD6Qqm1CIHjRX5RiJAUAfpuGkNg5Hx9QwE83I5Uh8hNMUWTOlHDkoAnwF+uyiIZ6YwHwiQHwiADahmr89pi7XwHwi"
    "QHwhgCIc738pIK3AfCHAfCGAIXDvKd4JwDokA6IAX6fHh52sKVzAOiQDogA2oXhfhCAmn8A6JAOigDX1dl+ECqb/f//Z"
)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    smooth = np.stack([2 * x + y, 255 - 3 * y, 80 + 30 * np.sin(x / 5)], -1) % 256
    return np.clip(smooth + np.random.default_rng(1).normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def lossy(picture: np.ndarray) -> bytes:
    """RGB as Aperio writes it: 9/7 wavelets with losses."""
    return imagecodecs.jpeg2k_encode(picture, level=36, codecformat="J2K", reversible=False, resolutions=4)


def lossless(planes: np.ndarray, **options: Any) -> bytes:
    return imagecodecs.jpeg2k_encode(planes, level=0, codecformat="J2K", reversible=True, resolutions=3, **options)


def by_openslide(path: Path, data: bytes, compression: int, side: int) -> np.ndarray:
    """The same tile, four times, as an Aperio slide that OpenSlide reads."""
    text = describe(ANYTHING, 2 * side, 2 * side)
    with tifffile.TiffWriter(path) as writer:
        options: dict[str, Any] = {
            "photometric": "rgb",
            "compression": compression,
            "description": text,
            "metadata": None,
        }
        writer.write(iter([data] * 4), shape=(2 * side, 2 * side, 3), dtype=np.uint8, tile=(side, side), **options)
    with openslide.OpenSlide(path) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        return np.asarray(slide.read_region((side, side), 0, (side, side)))[..., :3].astype(int)


def exact_rgb(y: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> np.ndarray:
    """The colours of full-range YCbCr [ITU-T T.871], float [h, w, 3]."""
    cb, cr = cb - 128.0, cr - 128.0
    return np.clip(np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1), 0, 255)


def test_rgb_equals_openslide(tmp_path: Path, picture: np.ndarray, lossy: bytes) -> None:
    pixels = decode(lossy, RGB, SIDE, SIDE)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, by_openslide(tmp_path / "rgb.svs", lossy, RGB, SIDE))
    assert 0 < np.abs(pixels.astype(int) - picture).mean() < 8


def test_rgb_equals_openslide_on_a_real_slide(real_data: Path) -> None:
    path = real_data / "wsi" / "tcga-cr-7395-01a-01-ts1.svs"
    if not path.exists():
        pytest.skip("no JPEG 2000 slide in ../shared/data/real/wsi")
    with openslide.OpenSlide(path) as slide, tifffile.TiffFile(path) as tiff, open(path, "rb") as file:
        page = tiff.pages[0]
        across = -(-slide.dimensions[0] // 256)
        for number in (0, 5, 5 * across + 8, 8 * across + 3, 12 * across + 16):
            file.seek(page.dataoffsets[number])
            pixels = decode(file.read(page.databytecounts[number]), int(page.compression), 256, 256)
            at = (number % across * 256, number // across * 256)
            assert np.array_equal(pixels, np.asarray(slide.read_region(at, 0, (256, 256)))[..., :3])


def test_ycbcr_with_full_chroma(tmp_path: Path) -> None:
    cb, cr = np.meshgrid(np.arange(0, 256, 4), np.arange(0, 256, 4))
    planes = np.stack([np.random.default_rng(2).integers(0, 256, cb.shape), cb, cr], -1).astype(np.uint8)
    data = lossless(planes, mct=False)
    pixels = decode(data, YCBCR, SIDE, SIDE).astype(int)
    assert np.abs(pixels - exact_rgb(*np.moveaxis(planes.astype(float), -1, 0))).max() < 1.01
    assert np.abs(pixels - by_openslide(tmp_path / "full.svs", data, YCBCR, SIDE)).max() <= 1


def test_ycbcr_with_half_the_chroma(tmp_path: Path) -> None:
    y, x = np.mgrid[:32, :32]
    even = x - x % 2
    pixels = decode(HALF_CHROMA, YCBCR, 32, 32).astype(int)
    expected = exact_rgb(60.0 + 2 * x + 3 * y, 100 + even + 3 * y, 180 - even - 2 * y)
    assert np.abs(pixels - expected).max() < 1.01
    assert np.abs(pixels - by_openslide(tmp_path / "half.svs", HALF_CHROMA, YCBCR, 32)).max() <= 1


def test_width_and_height_are_not_mixed_up(picture: np.ndarray) -> None:
    data = lossless(np.ascontiguousarray(picture[:48]))
    assert np.array_equal(decode(data, RGB, SIDE, 48), picture[:48])
    with pytest.raises(SlideError, match="64 × 48 px, not 48 × 64 px"):
        decode(data, RGB, 48, SIDE)


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: b"\0" * 400, lambda d: d[:60], lambda d: d[:-1]])
def test_damaged_tiles_are_refused(lossy: bytes, damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(SlideError, match=r"JPEG 2000 tile: (damaged|not a codestream)"):
        decode(damage(lossy), RGB, SIDE, SIDE)


@given(st.data())
def test_every_cut_is_noticed(lossy: bytes, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(lossy) - 1))
    with pytest.raises(SlideError, match=r"^JPEG 2000 tile: [^\n]+$"):
        decode(lossy[:length], RGB, SIDE, SIDE)


@given(st.integers(0, 120), st.integers(0, 255))
def test_a_wrong_byte_in_the_header_never_yields_another_shape(lossy: bytes, position: int, value: int) -> None:
    changed = lossy[:position] + bytes([value]) + lossy[position + 1 :]
    try:
        pixels = decode(changed, RGB, SIDE, SIDE)
    except SlideError as error:
        assert "JPEG 2000 tile: " in str(error)
    else:
        assert pixels.shape == (SIDE, SIDE, 3)
        assert pixels.dtype == np.uint8


@pytest.mark.parametrize("bands", [1, 4])
def test_other_components_are_refused(picture: np.ndarray, bands: int) -> None:
    planes = np.repeat(picture[..., :1], bands, -1) if bands > 1 else picture[..., 0]
    with pytest.raises(SlideError, match="not 3 components of 8 bits"):
        decode(lossless(np.ascontiguousarray(planes)), RGB, SIDE, SIDE)


def test_16_bits_are_refused(picture: np.ndarray) -> None:
    with pytest.raises(SlideError, match="not 3 components of 8 bits"):
        decode(lossless(picture.astype(np.uint16) * 200), RGB, SIDE, SIDE)


def test_rgb_of_unequal_sizes_is_refused() -> None:
    with pytest.raises(SlideError, match="components of fewer pixels, in RGB"):
        decode(HALF_CHROMA, RGB, 32, 32)


def test_other_compressions_are_refused(lossy: bytes) -> None:
    with pytest.raises(SlideError, match="unknown TIFF compression 34712"):
        decode(lossy, 34712, SIDE, SIDE)
