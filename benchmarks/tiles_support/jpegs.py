"""JPEG tiles as a scanner stores them in a TIFF: abbreviated streams, with the tables kept once per level."""

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
APP0, DQT, DHT, SOS = 0xE0, 0xDB, 0xC4, 0xDA


def encode(tile: Image, quality: int) -> bytes:
    """RGB uint8 [h, w, 3] as a whole baseline JPEG, YCbCr 4:2:0."""
    chroma = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, *chroma]
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR), options)[1])


def split(data: bytes) -> tuple[bytes, bytes]:
    """The tables (TIFF's JPEGTables) and the abbreviated stream of a whole JPEG; the JFIF header is dropped."""
    tables, rest, at = b"", b"", len(SOI)
    while data[at + 1] != SOS:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] in (DQT, DHT):
            tables += data[at:end]
        elif data[at + 1] != APP0:
            rest += data[at:end]
        at = end
    return SOI + tables + EOI, SOI + rest + data[at:]


def join(tables: bytes, stream: bytes) -> bytes:
    """A whole JPEG from TIFF's JPEGTables (may be empty) and an abbreviated stream."""
    return tables[:-2] + stream[2:] if tables else stream
