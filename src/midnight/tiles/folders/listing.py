"""The list of a folder's images: each read once, so that a damaged one is known before training, and by its content.

Images may lie at any depth, as files or in plain `.tar` files (WebDataset); nothing is unpacked or copied.
"""

import hashlib
import json
import os
import tarfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from midnight.atomic import atomic_path
from midnight.errors import MidnightError
from midnight.tiles.folders.look import EXTENSIONS, walk
from midnight.tiles.predrawn.codec import decode

SUFFIX = ".tiles.parquet"
ARCHIVE, COMPRESSED = ".tar", (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
COLUMNS = {"file": pa.string(), "offset": pa.int64(), "bytes": pa.int64(), "width": pa.int32(), "height": pa.int32()}
SCHEMA = pa.schema([*COLUMNS.items(), ("crc", pa.uint32())])
IDENTITY, ROOT, REFUSED = b"midnight.tiles", b"midnight.root", b"midnight.refused"


@dataclass(frozen=True)
class Place:
    """Where an image lies: file below the folder, first byte and number of bytes there, its name."""

    file: str
    offset: int
    bytes: int
    name: str


@dataclass(frozen=True)
class TileList:
    """What a list says besides its rows: the folder, the images that were refused and why, how many are used."""

    root: Path
    refused: tuple[tuple[str, str], ...]
    used: int


def is_tile_list(path: Path) -> bool:
    """Whether a run's data are a list of images rather than an index of slides."""
    return path.name.endswith(SUFFIX)


def list_tiles(root: Path, output: Path, workers: int) -> None:
    """Read all images of a folder and write their list.

    Args:
        root: the folder.
        output: `….tiles.parquet`.
        workers: images read at a time.

    Raises:
        MidnightError: the folder can't be read, or has no image that can be.
    """
    places, refused = find_images(root)
    with ThreadPoolExecutor(workers) as pool:
        found = list(tqdm(pool.map(lambda place: _read(root, place), places), total=len(places), unit="image"))
    rows = [row for row in found if isinstance(row, dict)]
    refused += [(place.name, row) for place, row in zip(places, found, strict=True) if isinstance(row, str)]
    if not rows:
        why = f"; {refused[0][0]}: {refused[0][1]}" if refused else ""
        raise MidnightError(f"{root}: no image to train on in {len(places)} files ({', '.join(EXTENSIONS)}, .tar){why}")
    table = pa.Table.from_pylist(rows, SCHEMA)
    facts = {IDENTITY: _identity(rows), ROOT: str(root.resolve()), REFUSED: json.dumps(refused)}
    with atomic_path(output) as temporary:
        pq.write_table(table.replace_schema_metadata(facts), temporary, compression="zstd")


def find_images(root: Path) -> tuple[list[Place], list[tuple[str, str]]]:
    """The images below a folder in the order of their names, and files that can't be looked into, with the reason.

    Raises:
        MidnightError: the folder can't be read.
    """
    places: list[Place] = []
    refused: list[tuple[str, str]] = []
    for name, stat in walk(root):
        lower = name.lower()
        if stat is None:
            refused.append((name, "is a link to nothing"))
        elif lower.endswith(EXTENSIONS):
            places.append(Place(name, 0, stat.st_size, name))
        elif lower.endswith(COMPRESSED):
            refused.append((name, "is compressed: unpack it, or make a plain .tar of it"))
        elif lower.endswith(ARCHIVE):
            try:
                places += _members(root / name, name)
            except (OSError, tarfile.TarError) as error:
                refused.append((name, f"can't be read as tar: {error}"))
    return places, refused


def _members(path: Path, name: str) -> list[Place]:
    with tarfile.open(path, "r:") as archive:
        return [
            Place(name, member.offset_data, member.size, f"{name}/{member.name}")
            for member in archive
            if member.isfile() and member.name.lower().endswith(EXTENSIONS)
        ]


def _read(root: Path, place: Place) -> dict[str, Any] | str:
    """The row of an image, or why it is refused."""
    try:
        with open(root / place.file, "rb") as file:
            data = os.pread(file.fileno(), place.bytes, place.offset)
        height, width, _ = decode(data).shape
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    facts = {"width": width, "height": height, "crc": zlib.crc32(data)}
    return {"file": place.file, "offset": place.offset, "bytes": place.bytes} | facts


def _identity(rows: Sequence[dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row['file']}\0{row['offset']}\0{row['bytes']}\0{row['crc']}\n".encode())
    return digest.hexdigest()[:16]


def read_list(path: Path) -> TileList:
    """What a list says of itself.

    Raises:
        MidnightError: it can't be read.
    """
    try:
        schema, rows = pq.read_schema(path), pq.read_metadata(path).num_rows
        refused = tuple((str(name), str(why)) for name, why in json.loads(schema.metadata[REFUSED]))
        return TileList(Path(schema.metadata[ROOT].decode()), refused, rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MidnightError(f"{path}: no list of tiles: {error}; delete it and run Snakemake again") from error
