"""All masks of a tissue index in one file beside it (`index.masks`), any of which is read in a few µs.

Training draws a slide for each tile, out of 12,000. In the Parquet index a mask is found by reading and unpacking
its row group: 2 ms. Here its codes are one `pread` of 1–30 KB, and the bits below a tile another; that needs no memory
of its own: the system's page cache holds what is used, and all processes share it. The file is read and not mapped,
since a mapped file that vanishes (a network file system) kills the process with SIGBUS, while a read fails with an
error that says so.

The tissue stage writes the file. Where it is missing or belongs to another index (an index that an older version
wrote, or that was copied alone), it is written anew when it is first needed.

Form, all little-endian: "MNMASKS1", SHA-256 of the index's footer (which holds a digest of the masks), number of
slides n and bytes of the file as int64; then int64 [n, 3]: where a slide's piece starts, its blocks, and those of
them with bits; then the pieces: codes as int32, bits as uint32 [·, 32] (see `midnight.tissue.blocks`).
"""

import contextlib
import hashlib
import io
import logging
import os
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from midnight.atomic import atomic_path
from midnight.errors import MidnightError
from midnight.outages import Patience
from midnight.tissue.blocks import BLOCK, Bits, BlockMask, grid, to_blocks
from midnight.tissue.mask import unpack_rows

log = logging.getLogger(__name__)

MAGIC = b"MNMASKS1"
HEADER = struct.Struct("<8s32sqq")
COLUMNS = ["mask", "mask_width", "mask_height"]
NOTHING = to_blocks(np.empty((0, 0), np.uint8), 0, 0)


def masks_path(index: str | Path) -> Path:
    """The masks of an index: beside it, under its name."""
    return Path(index).with_suffix(".masks")


class MaskFile:
    """The masks of one index; open it with `open_masks`. Safe to use after a fork and in another thread."""

    def __init__(self, index: Path, digest: bytes, patience: Patience | None = None) -> None:
        self.index = Path(index)
        self.patience = patience or Patience(0)
        """With which the file is waited for when it can't be read for the moment."""
        self.path = masks_path(index)
        self._digest = digest
        self._file, self._table = self._open()

    def _open(self) -> tuple[io.FileIO, npt.NDArray[np.int64]]:
        file = io.FileIO(self.path)
        magic, digest, count, size = HEADER.unpack(file.read(HEADER.size).ljust(HEADER.size, b"\0"))
        if magic != MAGIC or digest != self._digest or size != os.fstat(file.fileno()).st_size:
            file.close()
            raise ValueError("not the masks of this index")
        return file, np.frombuffer(file.read(24 * count), np.int64).reshape(count, 3)

    def get(self, row: int, width: int, height: int) -> BlockMask:
        """The mask of a row of the index; `width` and `height` are those of its record.

        Raises:
            MidnightError: the file can't be read any more, or the slide has no mask.
        """
        start, blocks, mixed = self._table[row].tolist()
        down, across = grid(width, height)
        if not blocks or blocks != down * across:
            raise MidnightError(f"{self.path}: no mask of {width} × {height} px in row {row}; delete it and run again")
        codes = np.frombuffer(self._read(start, 4 * blocks), np.int32).reshape(down, across)
        return BlockMask(codes, width, height, mixed, partial(self._bits, start + 4 * blocks))

    def _bits(self, start: int, first: int, count: int) -> Bits:
        data = self._read(start + 4 * BLOCK * first, 4 * BLOCK * count)
        return np.frombuffer(data, np.uint32).reshape(count, BLOCK)

    def _read(self, start: int, size: int) -> bytes:
        try:
            data = self.patience.insist(partial(self._pread, start, size), str(self.path))
        except OSError as error:
            raise MidnightError(f"{self.path}: can't be read any more: {error.strerror}") from error
        if len(data) < size:
            raise MidnightError(f"{self.path}: cut off; delete it and run again")
        return data

    def _pread(self, start: int, size: int) -> bytes:
        try:
            return os.pread(self._file.fileno(), size, start)
        except OSError:
            with contextlib.suppress(OSError, ValueError):  # the handle may be what is stale
                opened = self._open()
                self._file.close()
                self._file, self._table = opened
            raise

    def __getstate__(self) -> dict[str, object]:
        return {"index": self.index, "path": self.path, "_digest": self._digest, "patience": self.patience}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._file, self._table = self._open()


def open_masks(index: str | Path, patience: Patience | None = None) -> MaskFile:
    """The masks of an index, written first where they are missing or those of another index.

    Args:
        index: whose masks.
        patience: with which the file is waited for later, when it can't be read for the moment; none if not given.

    Raises:
        MidnightError: the index can't be read, or its folder can't be written.
    """
    index = Path(index)
    digest = _digest(index)
    try:
        return MaskFile(index, digest, patience)
    except (OSError, ValueError):
        log.info("writing %s: missing, or not the masks of this index", masks_path(index))
    try:
        write_masks(index)
        return MaskFile(index, digest, patience)
    except (OSError, ValueError) as error:
        raise MidnightError(
            f"{masks_path(index)}: missing, or not the masks of {index.name}, and can't be written ({error}); "
            f"run the rule join_tissue again, or copy the index to a folder that you may write"
        ) from error


def write_masks(index: str | Path) -> Path:
    """Write the masks of an index beside it, atomically; takes some ms per slide.

    Raises:
        MidnightError: the index can't be read or the file can't be written.
    """
    index = Path(index)
    digest = _digest(index)
    with atomic_path(masks_path(index)) as temporary, open(temporary, "wb") as out:
        pieces = list(_pieces(index, out))
        size = out.tell()
        out.seek(0)
        out.write(HEADER.pack(MAGIC, digest, len(pieces), size))
        out.write(np.array(pieces, np.int64).reshape(-1, 3).tobytes())
    return masks_path(index)


def _pieces(index: Path, out: io.BufferedWriter) -> Iterator[tuple[int, int, int]]:
    """Write every slide's piece after the room for header and table; yields the table's rows."""
    try:
        file = pq.ParquetFile(index)
        count = file.metadata.num_rows
        out.seek(HEADER.size + 24 * count)
        rows = (row for batch in file.iter_batches(64, columns=COLUMNS) for row in batch.to_pylist())
        for row in tqdm(rows, total=count, desc=f"masks of {index.parent.name}", unit="slide", disable=count < 1000):
            mask = _blocks(row["mask"], row["mask_width"], row["mask_height"])
            yield out.tell(), mask.codes.size, mask.mixed
            out.write(mask.codes.tobytes() + mask.whole().tobytes())
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise MidnightError(f"{index}: not a readable tissue index: {' '.join(str(error).split())}") from error


def _blocks(packed: bytes | None, width: int, height: int) -> BlockMask:
    return to_blocks(unpack_rows(packed, width, height), width, height) if packed else NOTHING


def _digest(index: Path) -> bytes:
    """SHA-256 of a Parquet file's footer."""
    try:
        with open(index, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            length = int.from_bytes(file.read(4), "little")
            file.seek(max(0, size - 8 - length))
            return hashlib.sha256(file.read(length)).digest()
    except OSError as error:
        raise MidnightError(f"{index}: can't be read: {error.strerror}") from error
