"""One shard: a tar of tiles as WebDataset reads it, and beside it a table that says where each image lies.

Members are NAME.jpg (or .png) and NAME.json in turn, NAME being the sample number with nine digits; all their other
fields are fixed, so that the same tiles give the same bytes. The table is written after the tar, both atomically:
where the table is, the shard is whole.
"""

import io
import json
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from midnight.atomic import atomic_path
from midnight.config.recipe import Predrawn
from midnight.errors import MidnightError
from midnight.tiles.draw.drawn import DrawnTile
from midnight.tiles.predrawn.codec import SUFFIX, encode

SCHEMA = pa.schema(
    [
        pa.field("sample", pa.int64(), metadata={"doc": "number of the draw: the generator's index"}),
        pa.field("shard", pa.int32(), metadata={"doc": "number of the tar"}),
        pa.field("offset", pa.int64(), metadata={"doc": "of the image in the tar, bytes"}),
        pa.field("bytes", pa.int32(), metadata={"doc": "size of the image"}),
        pa.field("crc", pa.uint32(), metadata={"doc": "CRC-32 of the image"}),
        pa.field("slide", pa.int32(), metadata={"doc": "number in the index's list of slides"}),
        pa.field("cohort", pa.int16(), metadata={"doc": "number in the index's list of cohorts"}),
        pa.field("mpp", pa.float64(), metadata={"doc": "µm/px"}),
        pa.field("x", pa.int32(), metadata={"doc": "upper left corner, level-0 px"}),
        pa.field("y", pa.int32(), metadata={"doc": "upper left corner, level-0 px"}),
    ]
)
KEY = b"midnight.key"


def tar_path(folder: Path, shard: int) -> Path:
    """The tar of a shard."""
    return Path(folder) / "shards" / f"{shard:05d}.tar"


def table_path(folder: Path, shard: int) -> Path:
    """The table of a shard, beside its tar."""
    return tar_path(folder, shard).with_suffix(".parquet")


def write_tar(
    folder: Path,
    shard: int,
    tiles: Iterable[tuple[int, DrawnTile]],
    predrawn: Predrawn,
    slides: list[str],
    cohorts: list[str],
    key: str,
) -> pa.Table:
    """Write a shard's tar, then its table.

    Args:
        folder: of the set.
        shard: number of the shard.
        tiles: sample number and tile, in rising order of the numbers.
        predrawn: format and quality.
        slides: ids of the slides that `DrawnTile.slide` counts, for the .json members.
        cohorts: names of the cohorts.
        key: see `TileSet.key`.

    Returns:
        The table: a row per tile, see SCHEMA.

    Raises:
        MidnightError: the disk is full or can't be written.
    """
    rows = []
    path = tar_path(folder, shard)
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample, tile in tiles:
            image = encode(tile.pixels, predrawn)
            place = {"mpp": tile.mpp, "x": tile.x, "y": tile.y}
            offset = _add(tar, f"{sample:09d}.{SUFFIX[predrawn.format]}", image)
            _add(tar, f"{sample:09d}.json", _json(slides[tile.slide], cohorts[tile.cohort], place))
            numbers = {"slide": tile.slide, "cohort": tile.cohort} | place
            where = {"sample": sample, "shard": shard, "offset": offset, "bytes": len(image)}
            rows.append(where | {"crc": zlib.crc32(image)} | numbers)
    table = pa.Table.from_pylist(rows, SCHEMA).replace_schema_metadata({KEY: key})
    write_table(table, table_path(folder, shard))
    return table


def _json(slide: str, cohort: str, place: dict[str, float]) -> bytes:
    return json.dumps({"slide": slide, "cohort": cohort} | place, separators=(",", ":")).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append a member; where its data begin."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    begin = tar.offset + tarfile.BLOCKSIZE  # after the header, which is one block in this format
    tar.addfile(member, io.BytesIO(data))
    return begin


def write_table(table: pa.Table, path: Path) -> None:
    """Write rows of SCHEMA as Parquet, atomically."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_rows(path: Path, key: str) -> pa.Table:
    """The rows of a shard or of a job, which must bear the set's key.

    Raises:
        MidnightError: the file is missing, is no such table, or is of other tiles.
    """
    try:
        table = pq.ParquetFile(path).read()
        rows = table.select(SCHEMA.names).cast(SCHEMA)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise MidnightError(f"{path}: not a readable table of tiles: {reason}; delete it and draw again") from error
    if (table.schema.metadata or {}).get(KEY) != key.encode():
        raise MidnightError(f"{path}: its tiles are of other slides or settings; delete it and draw again")
    return rows


def finished(folder: Path, shard: int, samples: range, key: str) -> pa.Table | None:
    """The rows of a shard that is there, whole and of this set; None if it must be drawn."""
    tar = tar_path(folder, shard)
    if not table_path(folder, shard).exists() or not tar.exists():
        return None
    try:
        rows = read_rows(table_path(folder, shard), key)
    except MidnightError:
        return None
    whole = rows.num_rows == len(samples) and rows["sample"][0].as_py() == samples.start
    last = rows["offset"][-1].as_py() + rows["bytes"][-1].as_py() if whole else 0
    return rows if whole and tar.stat().st_size > last else None
