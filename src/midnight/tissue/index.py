"""The tissue index: what is known of each slide of a cohort, as one Parquet file that training reads."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from midnight.atomic import atomic_path
from midnight.errors import MidnightError
from midnight.hashing import hash_file, hash_value
from midnight.slides.files import seconds
from midnight.tissue.mask import Mask, unpack
from midnight.tissue.maskfile import write_masks
from midnight.tissue.openslides import unusable

# Masks and thumbnails are read one row group at a time, and a footer with many groups is slow to read: 0.05 ms for
# each column of each.
ROW_GROUP = 128
CHANGED = "changed since its mask was made; run the workflow again"
BULKY = ("mask", "thumbnail")
SCHEMA = pa.schema(
    [
        ("slide_id", pa.string()),
        ("path", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("vendor", pa.string()),
        ("mpp", pa.float64()),
        ("mpp_source", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("level_widths", pa.list_(pa.int64())),
        ("level_heights", pa.list_(pa.int64())),
        ("level_downsamples", pa.list_(pa.float64())),
        ("mask_width", pa.int64()),
        ("mask_height", pa.int64()),
        ("mask_mpp", pa.float64()),
        ("tissue_mm2", pa.float64()),
        ("mpps", pa.list_(pa.float64())),
        ("mask", pa.binary()),
        ("thumbnail", pa.binary()),
        ("file_size", pa.int64()),
        ("modified", pa.int64()),
    ]
)
# Columns that older indexes lack: 0 stands for "not known".
STAMPS = ("file_size", "modified")


@dataclass(frozen=True)
class TissueRecord:
    """One slide: sizes in level-0 px, mpp in µm/px, `mpps` the usable ones of the standard mpps.

    `file_size` (bytes) and `modified` (seconds since 1970) are the file's when its mask was made, 0 where not known.
    A quarantined slide has `status` "quarantined", a `reason`, and the defaults in what is not known of it.
    `packed` and `jpeg` hold the mask (see `midnight.tissue.mask`) and the thumbnail when the record is fresh;
    when it was read from an index, both are fetched from the file on demand, since all masks of a large
    cohort together do not belong in memory.
    """

    slide_id: str
    path: str
    status: str = "ok"
    reason: str = ""
    vendor: str = ""
    mpp: float = 0.0
    mpp_source: str = ""
    width: int = 0
    height: int = 0
    level_widths: tuple[int, ...] = ()
    level_heights: tuple[int, ...] = ()
    level_downsamples: tuple[float, ...] = ()
    mask_width: int = 0
    mask_height: int = 0
    mask_mpp: float = 0.0
    tissue_mm2: float = 0.0
    mpps: tuple[float, ...] = ()
    file_size: int = 0
    modified: int = 0
    packed: bytes = field(default=b"", repr=False)
    jpeg: bytes = field(default=b"", repr=False)
    index: str = ""
    row: int = -1

    @property
    def ok(self) -> bool:
        """Whether tiles may be drawn from this slide."""
        return self.status == "ok"

    @property
    def level_mpps(self) -> tuple[float, ...]:
        """µm/px of each level."""
        return tuple(self.mpp * downsample for downsample in self.level_downsamples)

    def stamped(self, with_time: bool) -> "TissueRecord":
        """The record with the file's present size and, unless that does not count, time.

        Raises:
            SlideError: there is no such file.
        """
        try:
            status = Path(self.path).stat()
        except OSError as error:
            raise unusable(error) from error
        return dataclasses.replace(self, file_size=status.st_size, modified=seconds(status) if with_time else 0)

    def unchanged(self, fd: int | None = None) -> bool:
        """Whether the file (`fd` if it is open) is the one that the mask was made of, by its size and time.

        True also where that can't be told: reading it will say more.
        """
        try:
            status = os.stat(self.path if fd is None else fd)  # noqa: PTH116 - also of an open file
        except OSError:
            return True
        return self.file_size in (0, status.st_size) and self.modified in (0, seconds(status))

    def packed_mask(self) -> bytes:
        """The compressed mask.

        Raises:
            MidnightError: the slide has no mask, or its index is gone.
        """
        found = self.packed or self._fetch("mask")
        if not found:
            raise MidnightError(f"slide {self.slide_id}: no tissue mask ({self.reason or 'empty record'})")
        return found

    def mask(self) -> Mask:
        """The tissue mask, bool [mask_height, mask_width]."""
        return unpack(self.packed_mask(), self.mask_width, self.mask_height)

    def thumbnail(self) -> bytes:
        """A small JPEG of the whole slide; empty when it was never read."""
        return self.jpeg or self._fetch("thumbnail")

    def _fetch(self, column: str) -> bytes:
        if self.row < 0:
            return b""
        try:
            changed = Path(self.index).stat().st_mtime_ns
            rows = _opened(self.index, changed, os.getpid()).metadata.row_group(0).num_rows
            values = _group(self.index, changed, os.getpid(), self.row // rows, column)
            return values[self.row % rows].as_py() or b""
        except (OSError, pa.ArrowException, IndexError) as error:
            raise MidnightError(f"{self.index}: can't be read any more: {_line(error)}") from error


@lru_cache(maxsize=8)
def _opened(path: str, changed: int, process: int) -> pq.ParquetFile:
    """The file at `path` as of its modification time `changed`; its footer is parsed once in each process."""
    return pq.ParquetFile(path)


@lru_cache(maxsize=2)
def _group(path: str, changed: int, process: int, number: int, column: str) -> pa.ChunkedArray:
    """A column of a row group; the last two are kept, since pages go through an index in order."""
    table = _opened(path, changed, process).read_row_group(number, columns=[column], use_threads=False)
    return table.column(column)


def write_records(records: Iterable[TissueRecord], output: Path) -> None:
    """Write records with masks and thumbnails to a Parquet file, atomically."""
    rows = [_row(record) for record in records]
    _write(pa.Table.from_pylist(rows, SCHEMA), output)


def _row(record: TissueRecord) -> dict[str, Any]:
    row = {entry.name: getattr(record, entry.name) for entry in dataclasses.fields(record)}
    return row | {"mask": record.packed, "thumbnail": record.jpeg}


def _write(table: pa.Table, output: Path) -> None:
    digests = {"midnight.masks": _digest_of(table, "mask"), "midnight.tiles": _tiles_digest(table)}
    marked = table.replace_schema_metadata(digests)
    with atomic_path(output) as temporary:
        pq.write_table(marked, temporary, row_group_size=ROW_GROUP, compression="zstd")


def _digest_of(table: pa.Table, column: str) -> str:
    """SHA-256 of all bytes of a column: by that of the masks `midnight.tissue.maskfile` knows its index."""
    digest = hashlib.sha256()
    for value in table.column(column):
        digest.update(value.as_buffer() if value.is_valid else b"")
    return digest.hexdigest()


def _tiles_digest(table: pa.Table) -> str:
    """Hash of all that tiles depend on: not of where slides lie, when they were copied, or why some are left out."""
    used = table.filter(pc.equal(table.column("status"), "ok"))
    names = [name for name in table.column_names if name not in (*BULKY, *STAMPS, "path", "reason", "mpp_source")]
    content = [_digest_of(used, name) for name in BULKY]
    return hash_value([used.select(names).to_pylist(), content])


def index_identity(path: Path) -> str:
    """Hash (16 hex digits) of what the tiles of an index depend on; of the whole file if an older version wrote it.

    Raises:
        MidnightError: the file can't be read.
    """
    try:
        known = _metadata(path).get(b"midnight.tiles")
        return known.decode() if known else hash_file(path)[:16]
    except OSError as error:
        raise MidnightError(f"{path}: can't be read: {error.strerror or error}") from error


def _metadata(path: Path) -> dict[bytes, bytes]:
    """What was written into a Parquet file's footer; nothing of a file that is none, which reading it will tell."""
    with open(path, "rb") as file:
        try:
            return pq.read_schema(file).metadata or {}
        except pa.ArrowInvalid:
            return {}


def join_shards(shards: Sequence[Path], output: Path) -> None:
    """Join the shards' files into the cohort's index, sorted by slide_id; its masks are written beside it.

    Quarantined slides are kept: the quality page and the report list them. A cohort of which all slides are
    quarantined still gets its index; `training_slides` is what refuses it.

    Raises:
        MidnightError: a shard can't be read, or two shards hold the same slide.
    """
    tables = [_read(Path(shard), None) for shard in shards]
    table = pa.concat_tables([SCHEMA.empty_table(), *tables]).sort_by("slide_id")
    names = table.column("slide_id").to_pylist()
    if twice := {name for name, after in pairwise(names) if name == after}:
        raise MidnightError(f"{output}: slides in more than one shard: {', '.join(sorted(twice)[:5])}")
    _write(table.combine_chunks(), output)
    write_masks(output)


def read_index(path: Path) -> list[TissueRecord]:
    """All slides of an index (or of a shard), also the quarantined; masks stay in the file until asked for.

    Raises:
        MidnightError: the file is missing or is not a tissue index.
    """
    path = Path(path)
    columns = [name for name in SCHEMA.names if name not in BULKY]
    rows = _read(path, columns).to_pylist()
    lists = ("level_widths", "level_heights", "level_downsamples", "mpps")
    for number, row in enumerate(rows):
        row |= {name: tuple(row[name] or ()) for name in lists}
        row |= {"index": str(path), "row": number}
    return [TissueRecord(**row) for row in rows]


def training_slides(path: Path) -> list[TissueRecord]:
    """The slides of an index that tiles may be drawn from.

    Raises:
        MidnightError: the file can't be read, or no slide is left.
    """
    records = read_index(path)
    usable = [record for record in records if record.ok]
    if not usable:
        reasons = sorted({record.reason for record in records})
        why = f"{len(records)} quarantined ({'; '.join(reasons[:3])})" if records else "it is empty"
        raise MidnightError(f"{path}: no slide to train on: {why}; see qc.html beside it")
    return usable


def _read(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        table = pq.ParquetFile(path).read(columns=columns)
        for name in STAMPS:
            if name not in table.column_names:
                table = table.append_column(name, pa.array([0] * len(table), pa.int64()))
        return table.select(columns or SCHEMA.names).cast(_schema(columns))
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise MidnightError(f"{path}: not a readable tissue index: {_line(error)}") from error


def _schema(columns: list[str] | None) -> pa.Schema:
    return pa.schema([SCHEMA.field(name) for name in columns]) if columns else SCHEMA


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
