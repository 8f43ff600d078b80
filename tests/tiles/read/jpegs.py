"""JPEG images for tests, encoded and decoded by Pillow (libjpeg-turbo)."""

import io

import cv2
import numpy as np
from PIL import Image

SUBSAMPLING = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Pink and purple blobs with edges and noise, RGB uint8 [height, width, 3]: all coefficients occur."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.random((height // 7 + 2, width // 7 + 2)).astype(np.float32), (width, height))
    image = np.where((coarse > 0.5)[..., None], (120, 60, 150), (240, 190, 215)) + rng.normal(0, 20, (height, width, 3))
    image[: height // 3, : width // 3] = (244, 243, 245)
    return np.clip(image, 0, 255).astype(np.uint8)


def encoded(image: np.ndarray, subsampling: str = "4:2:0", quality: int = 75, **options: object) -> bytes:
    """A whole JPEG."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", subsampling=SUBSAMPLING[subsampling], quality=quality, **options)
    return out.getvalue()


def decoded(data: bytes) -> np.ndarray:
    """RGB uint8 [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def abbreviated(data: bytes) -> tuple[bytes, bytes]:
    """A JPEG's tables as a stream of their own, and the image without them, as TIFF stores them."""
    tables, image, at = b"\xff\xd8", b"\xff\xd8", 2
    while data[at + 1] != 0xDA:
        size = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        part = data[at : at + size]
        if data[at + 1] in (0xDB, 0xC4):
            tables += part
        elif data[at + 1] not in range(0xE0, 0xF0):
            image += part
        at += size
    return tables + b"\xff\xd9", image + data[at:]
