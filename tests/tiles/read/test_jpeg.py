"""Windows of JPEG tiles are the pixels of the whole tiles, bit for bit, and damaged tiles do no harm."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midnight import native
from midnight.tiles.read import jpeg
from midnight.tiles.read.area import average
from midnight.tiles.read.jpeg import Mosaic, NotDecodedError, TileDecoder, WholeTiles, Windows
from tests.tiles.read.jpegs import abbreviated, decoded, encoded, texture
from tests.tiles.read.tiffs import rgb_jpeg

COMPILED = native.library()
needs_compiled = pytest.mark.skipif(COMPILED is None, reason="installed without a C compiler: no compiled decoder")


def decoders() -> list[TileDecoder]:
    return [WholeTiles(), *([Windows(COMPILED)] if COMPILED else [])]


def one_tile(
    decoder: TileDecoder,
    data: bytes,
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    reduce: int = 1,
    tables: bytes = b"",
    ycc: bool = True,
) -> np.ndarray:
    spans = np.array([[[0, len(data)]]], np.int64)
    return decoder.window(Mosaic(np.frombuffer(data, np.uint8), spans, size, tables, ycc), window, reduce)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("size", [(256, 256), (240, 240), (64, 48), (61, 53), (17, 9), (8, 8)])
def test_whole_tiles_equal_libjpeg_turbo(subsampling: str, size: tuple[int, int]) -> None:
    data = encoded(texture(size[1], size[0]), subsampling)
    for decoder in decoders():
        assert np.array_equal(one_tile(decoder, data, size, (0, 0, *size)), decoded(data)), decoder


@pytest.mark.parametrize("quality", [1, 30, 90, 100])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_blocks": 3}, {"restart_marker_rows": 1}])
def test_any_quality_tables_and_restart_intervals(quality: int, options: dict[str, object]) -> None:
    data = encoded(texture(96, 80), "4:2:0", quality, **options)
    for decoder in decoders():
        assert np.array_equal(one_tile(decoder, data, (80, 96), (0, 0, 80, 96)), decoded(data))
        assert np.array_equal(one_tile(decoder, data, (80, 96), (33, 50, 20, 41)), decoded(data)[50:91, 33:53])


@needs_compiled
@settings(max_examples=150)
@given(st.data())
def test_any_window_of_a_mosaic_equals_the_whole(data: st.DataObject) -> None:
    subsampling = data.draw(st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]))
    width, height = data.draw(st.sampled_from([(64, 64), (48, 80), (40, 24)]))
    reduce = data.draw(st.sampled_from([1, 2, 4]))
    rows, columns = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    tiles = [encoded(texture(height, width, seed), subsampling) for seed in range(rows * columns)]
    sizes = np.array([len(tile) for tile in tiles])
    spans = np.stack([np.cumsum(sizes) - sizes, sizes], 1).reshape(rows, columns, 2)
    x = reduce * data.draw(st.integers(0, columns * width // reduce - 1))
    y = reduce * data.draw(st.integers(0, rows * height // reduce - 1))
    w = reduce * data.draw(st.integers(1, (columns * width - x) // reduce))
    h = reduce * data.draw(st.integers(1, (rows * height - y) // reduce))
    box = (x, y, w, h)
    assert COMPILED
    mosaic = Mosaic(np.frombuffer(b"".join(tiles), np.uint8), spans, (width, height))
    found = Windows(COMPILED).window(mosaic, box, reduce)
    everything = (0, 0, columns * width, rows * height)
    whole = (WholeTiles() if reduce == 1 else Windows(COMPILED)).window(mosaic, everything, reduce)
    assert np.array_equal(found, whole[y // reduce : (y + h) // reduce, x // reduce : (x + w) // reduce])


@needs_compiled
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("reduce", [2, 4])
def test_reduced_tiles_are_area_averages(subsampling: str, reduce: int) -> None:
    assert COMPILED
    data = encoded(texture(256, 256), subsampling, 80)
    found = one_tile(Windows(COMPILED), data, (256, 256), (0, 0, 256, 256), reduce).astype(float)
    expected = average(decoded(data), reduce).astype(float)
    assert np.abs(found - expected).mean() < 2  # of edges and noise of ± 20 levels
    for axis in (0, 1):  # neither moved nor blurred
        assert np.diff(found, axis=axis).var() == pytest.approx(np.diff(expected, axis=axis).var(), rel=0.06)


def test_tables_of_the_file_and_grey_and_rgb_tiles() -> None:
    data = encoded(texture(64, 64), "4:2:0")
    tables, image = abbreviated(data)
    for decoder in decoders():
        found = one_tile(decoder, image, (64, 64), (10, 20, 30, 40), tables=tables)
        assert np.array_equal(found, decoded(data)[20:60, 10:40])
        with pytest.raises(NotDecodedError):
            # Another image's tables must not linger.
            one_tile(Windows(COMPILED) if COMPILED else decoder, image, (64, 64), (0, 0, 64, 64))


@needs_compiled
def test_rgb_components_are_taken_as_they_are() -> None:
    assert COMPILED
    data = encoded(texture(64, 64), "4:4:4", 90)
    raw = one_tile(Windows(COMPILED), data, (64, 64), (0, 0, 64, 64), ycc=False)
    assert np.array_equal(raw, np.asarray(jpeg.imagecodecs.jpeg8_decode(data, colorspace="RGB", outcolorspace="RGB")))


@needs_compiled
@pytest.mark.parametrize("reduce", [2, 4])
def test_where_it_matters_averages_are_taken_of_what_was_decoded(reduce: int) -> None:
    assert COMPILED
    image, box = texture(64, 64), (0, 0, 64, 64)
    unlabelled = bytes(jpeg.imagecodecs.jpeg8_encode(image, colorspace="YCBCR", outcolorspace="YCBCR"))
    cases = {"RGB as YCbCr": (unlabelled, True), "RGB by its marker as YCbCr": (rgb_jpeg(image), True)}
    cases |= {"subsampled RGB": (encoded(image, "4:2:0"), False)}
    for name, (data, ycc) in cases.items():
        whole = one_tile(Windows(COMPILED), data, (64, 64), box, ycc=ycc)
        found = one_tile(Windows(COMPILED), data, (64, 64), box, reduce, ycc=ycc)
        assert np.array_equal(found, average(whole, reduce)), name
    # And where it does not, they are not.
    well = encoded(image, "4:2:0")
    whole = one_tile(Windows(COMPILED), well, (64, 64), box)
    assert not np.array_equal(one_tile(Windows(COMPILED), well, (64, 64), box, reduce), average(whole, reduce))


def joined(tiles: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of tiles of a row, and their spans."""
    sizes = np.array([len(tile) for tile in tiles])
    return np.frombuffer(b"".join(tiles), np.uint8), np.stack([np.cumsum(sizes) - sizes, sizes], 1)[None]


def test_no_tables_survive_their_image() -> None:
    first, second = (encoded(texture(64, 64, seed), quality=quality) for seed, quality in ((0, 80), (1, 90)))
    (coarse, _), (fine, bare) = abbreviated(first), abbreviated(second)
    for decoder in decoders():
        box, tile = (0, 0, 128, 64), (64, 64)
        # A tile that has none, beside one that has, in the same window.
        with pytest.raises(NotDecodedError):
            decoder.window(Mosaic(*joined([first, bare]), tile), box, 1)
        # A tile's own tables count for it alone; the others have the file's.
        found = decoder.window(Mosaic(*joined([first, bare]), tile, fine), box, 1)
        assert np.array_equal(found, np.hstack([decoded(first), decoded(second)])), decoder
        # Another file's are gone.
        assert not np.array_equal(one_tile(decoder, bare, tile, (0, 0, 64, 64), tables=coarse), decoded(second))
        with pytest.raises(NotDecodedError):
            one_tile(decoder, bare, tile, (0, 0, 64, 64))


@needs_compiled
def test_what_libjpeg_refuses_or_warns_of_is_refused() -> None:
    assert COMPILED
    data = encoded(texture(64, 64), restart_marker_blocks=2)
    tables, image = abbreviated(data)
    frame, scan = data.find(b"\xff\xc0"), data.find(b"\xff\xda")
    quantization, huffman = data.find(b"\xff\xdb"), data.find(b"\xff\xc4")
    restart = data.find(b"\xff\xd1")
    whole = slice(frame, frame + 19)
    ones = data[: huffman + 5] + bytes([0] * 7 + [255] + [0] * 8) + data[huffman + 21 :]
    cases = {
        "no start": data[2:],
        "a second start": data[:2] + data,
        "no end": data[:-2],
        "a second frame": data[: frame + 19] + data[whole] + data[frame + 19 :],
        "no frame": data[:frame] + data[frame + 19 :],
        "a scan of part of the coefficients": data[: scan + 12] + b"\x20" + data[scan + 13 :],
        "a quantization table of no number": data[: frame + 12] + b"\x07" + data[frame + 13 :],
        "no quantization tables": data[:quantization] + data[frame:],
        "a Huffman table of no number": data[: scan + 6] + b"\x70" + data[scan + 7 :],
        "bytes before a restart": data[:restart] + b"\x12\x34" + data[restart:],
        "restarts out of order": data[:restart] + b"\xff\xd5" + data[restart + 2 :],
        "a code of ones": ones,
        "coefficients that overflow": data[: quantization + 5] + b"\xff" * 30 + data[quantization + 35 :],
    }
    decoder, box = Windows(COMPILED), (0, 0, 64, 64)
    assert np.array_equal(one_tile(decoder, data, (64, 64), box), decoded(data))
    for name, one in cases.items():
        with pytest.raises(NotDecodedError):
            pytest.fail(f"{name}: {one_tile(decoder, one, (64, 64), box).shape}")
    for name, one in {"cut short": tables[:-2], "an image": data, "no tables": b"\xff\xd8"}.items():
        with pytest.raises(NotDecodedError):
            pytest.fail(f"{name}: {one_tile(decoder, image, (64, 64), box, tables=one).shape}")


def test_what_is_not_read_here_is_refused() -> None:
    image = texture(64, 64)
    grey = encoded(np.ascontiguousarray(image[..., 0]))
    cases = {"progressive": encoded(image, progressive=True), "another size": encoded(image[:32]), "grey": grey}
    for decoder in decoders():
        assert one_tile(decoder, encoded(image), (64, 64), (0, 0, 64, 64)).shape == (64, 64, 3)
        for name, data in cases.items():
            if name == "progressive" and isinstance(decoder, WholeTiles):
                continue  # imagecodecs reads it
            with pytest.raises(NotDecodedError):
                one_tile(decoder, data, (64, 64), (0, 0, 64, 64))


def test_truncated_and_empty_tiles_are_refused() -> None:
    data = encoded(texture(64, 64))
    for decoder in decoders():
        for size in (0, 1, 2, 3, 20, 200, 400):
            with pytest.raises(NotDecodedError):
                one_tile(decoder, data[:size], (64, 64), (0, 0, 64, 64))


@needs_compiled
def test_cut_short_inside_the_coded_data_is_refused() -> None:
    assert COMPILED
    data = encoded(texture(64, 64))
    cut = data[: len(data) * 2 // 3]
    for box in ((0, 0, 64, 64), (0, 0, 64, 8)):  # as OpenSlide, wherever the damage is
        with pytest.raises(NotDecodedError, match="damaged"):
            one_tile(Windows(COMPILED), cut, (64, 64), box)


@needs_compiled
@settings(max_examples=300)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]), st.sampled_from([1, 2, 4]))
def test_damaged_bytes_never_do_harm(seed: int, subsampling: str, reduce: int) -> None:
    assert COMPILED
    rng = np.random.default_rng(seed)
    data = bytearray(encoded(texture(48, 48), subsampling, restart_marker_blocks=int(rng.integers(0, 3))))
    for place in rng.integers(2, len(data), rng.integers(1, 12)):
        data[place] = rng.integers(256)
    try:
        pixels = one_tile(Windows(COMPILED), bytes(data), (48, 48), (8, 8, 40, 40), reduce)
        assert pixels.shape == (40 // reduce, 40 // reduce, 3)
    except NotDecodedError as error:
        assert "JPEG tile" in str(error)
