"""Small tiled TIFFs of exactly chosen bytes, sane or not, with JPEG or JPEG 2000 tiles."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs
import numpy as np

Encode = Callable[[np.ndarray], bytes]
FORMATS = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}
BYTE, ASCII, SHORT, LONG, UNDEFINED, LONG8 = FORMATS


@dataclass
class Page:
    """One directory: its pixels' size, its tiles' bytes in order, and what its tags say.

    offsets: by tile, places that are stated instead of the true ones; counts likewise.
    tags: type and values by tag, besides or instead of the usual ones; None leaves one out.
    """

    width: int
    height: int
    tile: int
    tiles: list[bytes]
    description: str = ""
    photometric: int = 6
    compression: int = 7
    offsets: dict[int, int] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    tags: Mapping[int, tuple[int, list[int]] | None] = field(default_factory=dict)

    def entries(self, places: list[int], big: bool) -> dict[int, tuple[int, list[int]]]:
        """Types and values by tag."""
        sizes = [self.counts.get(n, len(data)) for n, data in enumerate(self.tiles)]
        stated = [self.offsets.get(n, place) for n, place in enumerate(places)]
        word = LONG8 if big else LONG
        usual: dict[int, tuple[int, list[int]] | None] = {
            256: (LONG, [self.width]), 257: (LONG, [self.height]), 258: (SHORT, [8, 8, 8]),
            259: (SHORT, [self.compression]), 262: (SHORT, [self.photometric]), 277: (SHORT, [3]), 284: (SHORT, [1]),
            322: (LONG, [self.tile]), 323: (LONG, [self.tile]), 324: (word, stated), 325: (LONG, sizes),
        }  # fmt: skip
        if self.description:
            usual[270] = ASCII, [*self.description.encode(), 0]
        return {tag: entry for tag, entry in sorted((usual | dict(self.tags)).items()) if entry is not None}


def page(pixels: np.ndarray, tile: int, encode: Encode, description: str = "", **options: object) -> Page:
    """An image cut into tiles, those at the border filled up with its last pixels."""
    height, width = pixels.shape[:2]
    tiles = []
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            part = pixels[y : y + tile, x : x + tile]
            rest = ((0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0))
            tiles.append(encode(np.ascontiguousarray(np.pad(part, rest, "edge"))))
    return Page(width, height, tile, tiles, description, **options)  # type: ignore[arg-type]


def aperio(width: int, height: int, mpp: float = 0.25) -> str:
    """An ImageDescription that makes OpenSlide take the file for an Aperio slide."""
    return f"Aperio Image Library v12.0\r\n{width}x{height}|AppMag = 40|MPP = {mpp}"


def write_tiff(path: Path, pages: list[Page], big: bool = False, order: str = "<") -> Path:
    """The file: tiles of a page, then its directory."""
    out = bytearray(b"II" if order == "<" else b"MM")
    out += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 0) if big else (42, 0)))
    word, room, link = ("Q", 8, 8) if big else ("I", 4, 4)
    for one in pages:
        places = []
        for data in one.tiles:
            places.append(len(out) if data else 0)
            out += data + b"\0" * (len(data) % 2)
        directory = bytearray()
        entries = one.entries(places, big)
        for tag, (kind, values) in entries.items():
            data = struct.pack(f"{order}{len(values)}{FORMATS.get(kind, 'H')}", *values)
            if len(data) > room:
                data, at = struct.pack(order + word, len(out)), data
                out += at + b"\0" * (len(at) % 2)
            directory += struct.pack(f"{order}HH{word}", tag, kind, len(values)) + data.ljust(room, b"\0")
        out[link : link + room] = struct.pack(order + word, len(out))
        out += struct.pack(order + ("Q" if big else "H"), len(entries)) + directory
        link = len(out)
        out += bytes(room)
    path.write_bytes(out)
    return path


def rgb_jpeg(pixels: np.ndarray, quality: int = 80, subsampling: str = "444") -> bytes:
    """A JPEG whose components are R, G, B."""
    data = imagecodecs.jpeg8_encode(
        pixels, level=quality, colorspace="RGB", outcolorspace="RGB", subsampling=subsampling
    )
    return bytes(data)
