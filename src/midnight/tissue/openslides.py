"""Opening and reading slides through OpenSlide, with its failures as one-line reasons."""

import os
import struct
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import openslide
from PIL import Image, UnidentifiedImageError

from midnight.errors import UnreadableError
from midnight.outages import errno_in
from midnight.tissue.resolution import DamagedError, SlideError

WHITE = (255, 255, 255)
HEAD = 512
TIFF, BIG_TIFF = 42, 43
MOST_DIRECTORIES = 1000


def open_slide(path: str | Path) -> openslide.OpenSlide:
    """Open a slide.

    Raises:
        SlideError: there is no such file, or OpenSlide refuses it; the message is its reason.
    """
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise _why_unsupported(Path(path)) from error
    except (openslide.OpenSlideError, OSError, UnidentifiedImageError) as error:
        raise unusable(error, path) from error


def unusable(error: BaseException, path: str | Path = "") -> SlideError:
    """A failure to open a slide, as its one-line reason with the system's error number behind it."""
    found = SlideError(_reason(error, path))
    found.errno = _errno(error)
    return found


def damaged(error: BaseException, location: tuple[int, int], level: int) -> DamagedError:
    """A failure to read a slide at x, y in level-0 px, likewise."""
    found = DamagedError(f"can't be read at x={location[0]}, y={location[1]}, level {level}: {_reason(error)}")
    found.errno = _errno(error)
    return found


def read_rgb(
    slide: openslide.OpenSlide, location: tuple[int, int], level: int, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """RGB uint8 [height, width, 3] of a level; what the slide does not cover is white.

    Args:
        slide: an open slide.
        location: x, y in level-0 px.
        level: pyramid level.
        size: width, height in px of that level.

    Raises:
        DamagedError: a part can't be decoded. OpenSlide then refuses all further reads: open the slide anew.
    """
    try:
        image = slide.read_region(location, level, size)
    except (openslide.OpenSlideError, OSError, ValueError) as error:
        raise damaged(error, location, level) from error
    rgba = np.asarray(image)
    if rgba[..., 3].min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    background = Image.new("RGBA", image.size, (*WHITE, 255))
    return np.asarray(Image.alpha_composite(background, image).convert("RGB"))


def _why_unsupported(path: Path) -> SlideError:
    """What is behind OpenSlide's "unsupported or missing image file"."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(HEAD)
            if not head:
                return SlideError("the file is empty")
            if not any(head):
                return SlideError("begins with zeros: an unfinished copy or download; get it again")
            if is_cut_short(file, size):
                beyond = f"a TIFF whose directory lies beyond its {size:,} bytes"
                return SlideError(f"cut short: {beyond}; copy or download it again")
    except OSError as error:
        return unusable(error)
    if path.suffix.lower() == ".mrxs" and not path.with_suffix("").is_dir():
        return SlideError(f"the folder {path.stem} of its image data is not beside it")
    if head.lstrip()[:1] == b"<":
        return SlideError("not a slide but an HTML or XML page")
    return SlideError("not in a format that OpenSlide reads")


def is_cut_short(file: IO[bytes], size: int) -> bool:
    """Whether a file is a TIFF, one of whose directories lies beyond its end; its tiles may be missing anyway.

    Args:
        file: the file.
        size: its bytes.
    """
    file.seek(0)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    version = struct.unpack(order + "H", head[2:4])[0] if order and len(head) == 16 else 0
    if version not in (TIFF, BIG_TIFF):
        return False
    offset, count, entry = ("I", "H", 12) if version == TIFF else ("Q", "Q", 20)
    link = struct.Struct(order + offset)
    number = struct.Struct(order + count)
    place = link.unpack_from(head, 4 if version == TIFF else 8)[0]
    for _ in range(MOST_DIRECTORIES):
        if place == 0:
            return False
        if place + number.size > size:
            return True
        file.seek(place)
        end = place + number.size + entry * number.unpack(file.read(number.size))[0]
        if end + link.size > size:
            return True
        file.seek(end)
        place = link.unpack(file.read(link.size))[0]
    return False


def _errno(error: BaseException) -> int:
    """The system's error number; OpenSlide has it in words only, if at all."""
    return (error.errno or 0) if isinstance(error, (OSError, UnreadableError)) else errno_in(str(error))


def _reason(error: BaseException, path: str | Path = "") -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = " ".join(str(error).split()) or type(error).__name__
    return text.removeprefix(f"Reading {path}: ")
