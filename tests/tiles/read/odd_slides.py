"""Random small slides of every kind that may be read directly, many of them odd or damaged, for comparisons."""

import functools
from pathlib import Path

import cv2
import imagecodecs
import numpy as np

from tests.tiles.read.jpegs import abbreviated, encoded, texture
from tests.tiles.read.tiffs import BYTE, LONG, SHORT, UNDEFINED, Encode, Page, aperio, page, rgb_jpeg, write_tiff

SIDE, SCALES = 320, (1, 2, 4)


@functools.cache
def picture(seed: int, scale: int) -> np.ndarray:
    """Level `scale` of one of a few pictures, RGB uint8."""
    image = texture(SIDE, SIDE, seed)
    return cv2.resize(image, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)


def ycc_as_rgb(pixels: np.ndarray) -> bytes:
    """A JPEG whose components are R, G, B though nothing says so."""
    return bytes(imagecodecs.jpeg8_encode(pixels, level=80, colorspace="YCBCR", outcolorspace="YCBCR"))


def grey(pixels: np.ndarray) -> bytes:
    """A JPEG of one component."""
    return encoded(np.ascontiguousarray(pixels[..., 0]))


def jpeg2000(pixels: np.ndarray) -> bytes:
    """A raw codestream of R, G, B."""
    return bytes(imagecodecs.jpeg2k_encode(pixels, level=40, codecformat="j2k", mct=False, reversible=False))


JPEGS: dict[str, Encode] = {
    "4:2:0": functools.partial(encoded, subsampling="4:2:0"),
    "4:2:2": functools.partial(encoded, subsampling="4:2:2"),
    "4:4:4": functools.partial(encoded, subsampling="4:4:4"),
    "coarse": functools.partial(encoded, quality=15),
    "own tables": functools.partial(encoded, optimize=True),
    "restarts": functools.partial(encoded, restart_marker_blocks=3),
    "rgb": rgb_jpeg,
    "rgb 4:2:0": functools.partial(rgb_jpeg, subsampling="420"),
    "ycc as rgb": ycc_as_rgb,
    "grey": grey,
    "progressive": functools.partial(encoded, progressive=True),
}
SANE = [*JPEGS][:9]


def odd_slide(path: Path, odd: str, seed: int) -> Path:
    """Write a slide with something odd about it, a name of `ODD`: Aperio or generic, of one to three levels."""
    rng = np.random.default_rng(seed)
    vendor = str(rng.choice(["aperio", "generic"]))
    pages = [level(rng, vendor, scale) for scale in SCALES[: rng.integers(1, 4)]]
    ODD[odd](rng, pages)
    big = odd == beyond_all_files.__name__ or bool(rng.integers(2))
    return write_tiff(path, pages, big, str(rng.choice(["<", ">"])))


def level(rng: np.random.Generator, vendor: str, scale: int) -> Page:
    """A level of a slide: any tile size, JPEG kind and label, with tables in the tiles or beside them."""
    pixels = picture(int(rng.integers(3)), scale)
    tile, photometric = int(rng.choice([48, 64, 80, 112])), int(rng.choice([2, 6]))
    note = aperio(SIDE // scale, SIDE // scale) if vendor == "aperio" else ""
    tags: dict[int, tuple[int, list[int]] | None] = {}
    if vendor != "aperio" and scale > 1:
        tags[254] = LONG, [1]
    if vendor == "aperio" and rng.random() < 0.15:
        return page(pixels, tile, jpeg2000, note, compression=33005, photometric=2, tags=tags)
    kind = str(rng.choice(SANE if rng.random() < 0.9 else [*JPEGS]))
    made = page(pixels, tile, JPEGS[kind], note, photometric=photometric, tags=tags)
    if kind != "own tables" and rng.random() < 0.5:
        share_tables(made)
    return made


def share_tables(one: Page) -> None:
    """Move the tables, the same in all tiles, into the directory."""
    parts = [abbreviated(data) for data in one.tiles]
    one.tiles = [image for _, image in parts]
    one.tags = dict(one.tags) | {347: (UNDEFINED, [*parts[0][0]])}


def some_page(rng: np.random.Generator, pages: list[Page]) -> Page:
    return pages[rng.integers(len(pages))]


def some_tile(rng: np.random.Generator, one: Page) -> int:
    return int(rng.integers(len(one.tiles)))


def plain(rng: np.random.Generator, pages: list[Page]) -> None:
    """Nothing is odd."""


def empty_tiles(rng: np.random.Generator, pages: list[Page]) -> None:
    """Tiles without bytes, of any level."""
    for _ in range(rng.integers(1, 4)):
        one = some_page(rng, pages)
        one.tiles[some_tile(rng, one)] = b""


def further_pages(rng: np.random.Generator, pages: list[Page]) -> None:
    """Pages of a level's size with any NewSubfileType, before or behind it; pages in another order."""
    for _ in range(rng.integers(1, 3)):
        one = some_page(rng, pages)
        pixels = 255 - picture(0, SIDE // one.width)
        tags = dict(one.tags) | {254: [None, (LONG, [0]), (LONG, [1]), (SHORT, [4]), (LONG, [3])][rng.integers(5)]}
        more = page(pixels, one.tile, JPEGS["4:4:4"], one.description, tags=tags)
        pages.insert(int(rng.integers(1, len(pages) + 1)), more)


def other_order(rng: np.random.Generator, pages: list[Page]) -> None:
    """Pages in any order."""
    rng.shuffle(pages)  # type: ignore[arg-type]


def lost_tables(rng: np.random.Generator, pages: list[Page]) -> None:
    """A level whose tables, or a tile's, are gone, or another level's, or cut short."""
    one, other = some_page(rng, pages), some_page(rng, pages)
    if one.compression != 7:
        return
    if 347 not in one.tags:
        share_tables(one)
    tables = bytes(dict(one.tags)[347][1])  # type: ignore[index]
    quantization, huffman = tables.find(b"\xff\xdb"), tables.find(b"\xff\xc4")
    choices: list[list[int] | None] = [
        None, dict(other.tags).get(347, (0, None))[1],  # type: ignore[index,list-item]
        [*tables[:-20]], [*tables[:-2]], [*tables[:huffman], 255, 217],
        [*tables[:2], *tables[max(quantization, huffman):]], [*one.tiles[0]],
    ]  # fmt: skip
    values = choices[rng.integers(len(choices))]
    one.tags = dict(one.tags) | {347: (UNDEFINED if rng.random() < 0.8 else BYTE, values) if values else None}


def strange_places(rng: np.random.Generator, pages: list[Page]) -> None:
    """Offsets and lengths of other tiles, beyond the file or beyond all files, and lengths too small or large."""
    for _ in range(rng.integers(1, 4)):
        one = some_page(rng, pages)
        tile = some_tile(rng, one)
        length = len(one.tiles[tile])
        if rng.integers(2):
            one.offsets[tile] = int(rng.choice(np.array([8, 1000, 1 << 30, (1 << 32) - 1], np.int64)))
            one.counts[tile] = int(rng.choice([length, 900]))
        else:
            one.counts[tile] = int(rng.choice([1, 3, length // 2, length - 1, length + 2, length + 500]))


def beyond_all_files(rng: np.random.Generator, pages: list[Page]) -> None:
    """Offsets that only a BigTIFF can state, 2⁶³ and more, and just before; OpenSlide reads all of the last level."""
    for _ in range(rng.integers(1, 6)):
        one = some_page(rng, pages[: max(1, len(pages) - 1)])
        one.offsets[some_tile(rng, one)] = [(1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 63) - 100][rng.integers(4)]


def shared_bytes(rng: np.random.Generator, pages: list[Page]) -> None:
    """Tiles that are copies of another's bytes, of their own or another level."""
    one, other = some_page(rng, pages), some_page(rng, pages)
    one.tiles[some_tile(rng, one)] = other.tiles[some_tile(rng, other)]


def odd_tags(rng: np.random.Generator, pages: list[Page]) -> None:
    """Tags of an odd type or number, or that change what others mean."""
    choices: list[tuple[int, tuple[int, list[int]] | None]] = [
        (284, (SHORT, [2])), (284, (BYTE, [2])), (284, None), (277, (SHORT, [4])), (277, (BYTE, [3])), (277, None),
        (258, (SHORT, [8])), (258, (SHORT, [8, 8, 16])), (258, None), (262, (SHORT, [1])), (262, (BYTE, [6])),
        (262, None), (266, (SHORT, [2])), (274, (SHORT, [3])), (317, (SHORT, [2])), (338, (SHORT, [0])),
        (339, (SHORT, [2])),
        (259, (SHORT, [8])), (259, (BYTE, [7])), (255, (SHORT, [2])), (255, (SHORT, [3])), (254, (BYTE, [1])),
        (254, (LONG, [0])), (254, None), (32997, (LONG, [1])), (32998, (LONG, [2])), (256, (SHORT, [SIDE, 5])),
        (323, (SHORT, [64])), (323, None), (322, None), (273, (LONG, [8] * 40)), (278, (LONG, [16])),
        (530, (SHORT, [2, 2])),
    ]  # fmt: skip
    one = some_page(rng, pages)
    one.tags = dict(one.tags) | dict([choices[rng.integers(len(choices))]])


def damaged_headers(rng: np.random.Generator, pages: list[Page]) -> None:
    """Bytes of a tile's or of the file's JPEG header that were changed."""
    for _ in range(rng.integers(1, 3)):
        one = some_page(rng, pages)
        tile = some_tile(rng, one)
        data = bytearray(one.tiles[tile])
        scan = max(data.find(b"\xff\xda"), 20)
        data[rng.integers(scan + 12)] = rng.integers(256)
        one.tiles[tile] = bytes(data)


def other_stream(rng: np.random.Generator, pages: list[Page]) -> None:
    """A tile of another kind than the rest: size, colours, subsampling, or no JPEG at all."""
    one = some_page(rng, pages)
    pixels = picture(1, 1)[: one.tile, : one.tile]
    kinds = [*JPEGS.values(), jpeg2000, lambda image: encoded(image[:32]), lambda image: image.tobytes()]
    one.tiles[some_tile(rng, one)] = kinds[rng.integers(len(kinds))](np.ascontiguousarray(pixels))


ODD = {
    made.__name__: made
    for made in (
        plain, empty_tiles, further_pages, other_order, lost_tables, strange_places, beyond_all_files, shared_bytes,
        odd_tags, damaged_headers, other_stream,
    )
}  # fmt: skip
