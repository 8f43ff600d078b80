"""What is wrong with a data set on disk: said in one line, before anything is computed from it."""

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from midnight.errors import MidnightError

JPEG = (".jpg", ".jpeg")
JPEG_END, TAIL = b"\xff\xd9", 4096


def explain(error: Exception, root: Path, tables: Sequence[str]) -> str:
    """Why eva's class can't make its list of images, in one line.

    Args:
        error: what it raised.
        root: the data set's folder.
        tables: the tables of labels in it, which a missing key must be missing from.
    """
    if isinstance(error, IndexError):
        return "fewer files than its splits are made of"
    if isinstance(error, KeyError) and tables:
        return f"no {error} in {' or '.join(tables)}"
    return with_file(error, str(root))


def with_file(error: Exception, root: str = "") -> str:
    """An error in one line, with the file (below `root`) that was being read, which many readers leave out."""
    text = " ".join(str(error).split()) or type(error).__name__
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    values = (value for frame in reversed(frames) for value in frame.f_locals.values())
    paths = (value for value in values if isinstance(value, str) and value.startswith(f"{root}/"))
    file = next((path for path in paths if Path(path).is_file()), None)
    known = file is None or file in text or isinstance(error, FileNotFoundError)
    return text if known else f"{file}: {text}"


def check_jpegs(root: Path, names: Sequence[str]) -> None:
    """Check that no JPEG among the files is cut off: OpenCV would give its missing part in grey, without an error.

    Raises:
        MidnightError: names the file.
    """
    for path in (root / name for name in names if name.lower().endswith(JPEG)):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            if JPEG_END not in file.read():
                raise MidnightError(f"{path}: cut off, its end is missing; get the file again")


def check_slides(root: Path, images: Any) -> None:
    """Check that no two slides have one name: their tiles would be put together as one slide.

    Args:
        root: the data set's folder.
        images: eva's MultiWsiDataset, configured.

    Raises:
        MidnightError: names the slide.
    """
    seen = set()
    for last in sorted({end - 1 for end in images.cumulative_sizes if end}):
        slide = images.filename(last).split(".")[0]
        if slide in seen:
            raise MidnightError(f"{root}: there are two slides {slide}; give every slide its own name")
        seen.add(slide)
