"""Files as parts of the page: figures with what they say about themselves, tables as downloads."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from midnight.errors import MidnightError

DC = "{http://purl.org/dc/elements/1.1/}"
RECODE_ABOVE = 60_000
MAX_SIDE = 1600


@dataclass(frozen=True)
class Embedded:
    """A figure ready for the page; `width` and `height` are CSS pixels."""

    name: str
    kind: str
    title: str
    alt: str
    caption: str
    uri: str
    width: int
    height: int


def data_uri(content: bytes, media_type: str) -> str:
    """`content` as a base64 data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def read_figure(path: Path) -> Embedded:
    """A figure of `midnight.report.figures` (SVG or PNG) as a data URI; big PNGs become WebP.

    Raises:
        MidnightError: the file is not such a figure.
    """
    try:
        read = _read_svg if path.suffix == ".svg" else _read_png
        title, description, uri, width, height = read(path)
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise MidnightError(f"{path}: can't be read as a figure ({error}); delete it and run its rule again") from error
    alt, _, caption = description.partition("\n\n")
    return Embedded(path.stem, path.stem.partition("-")[0], title or path.stem, alt, caption, uri, width, height)


def _read_svg(path: Path) -> tuple[str, str, str, int, int]:
    content = path.read_bytes()
    root = ElementTree.fromstring(content)  # noqa: S314 (written by our own rule)
    box = [float(part) for part in root.get("viewBox", "0 0 1 1").split()]
    # matplotlib's viewBox is in points; the page counts CSS pixels.
    width, height = (round(part * 96 / 72) for part in box[2:])
    texts = [root.findtext(f".//{DC}{name}") or "" for name in ("title", "description")]
    return texts[0], texts[1], data_uri(content, "image/svg+xml"), width, height


def _read_png(path: Path) -> tuple[str, str, str, int, int]:
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        text = {name: str(value) for name, value in image.info.items() if isinstance(value, str)}
        dpi = image.info.get("dpi", (96, 96))[0]
        width, height = (round(side * 96 / dpi) for side in image.size)
        uri = data_uri(content, "image/png") if len(content) <= RECODE_ABOVE else _webp(image)
    return text.get("Title", ""), text.get("Description", ""), uri, width, height


def _webp(image: Image.Image) -> str:
    smaller = image.convert("RGB")
    smaller.thumbnail((MAX_SIDE, MAX_SIDE * 4))
    output = io.BytesIO()
    smaller.save(output, "WEBP", quality=86, method=4)
    return data_uri(output.getvalue(), "image/webp")


def read_figures(paths: Iterable[Path]) -> list[Embedded]:
    """The figures of these files, in their order."""
    return [read_figure(Path(path)) for path in paths]
