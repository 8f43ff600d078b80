"""The index of a set: one Arrow file with a row per tile, mapped into memory.

Arrow (uncompressed, one record batch) and not Parquet, since a row of it is found without reading the others: 48
bytes a tile that all processes of a machine share, none of them in a process's own memory. pyarrow, pandas and
polars read it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from midnight.atomic import atomic_path
from midnight.errors import MidnightError
from midnight.tiles.predrawn.tars import SCHEMA

HEADER = b"midnight.tiles"


@dataclass(frozen=True)
class Index:
    """The rows by column (views of the mapped file), and what their numbers mean.

    settings: see `drawn_settings`; slides, cohorts: ids and names that the columns `slide` and `cohort` count;
    suffix: of the images, `jpg` or `png`.
    """

    path: Path
    columns: dict[str, npt.NDArray[Any]]
    settings: dict[str, Any]
    slides: list[str]
    cohorts: list[str]

    def __len__(self) -> int:
        return len(self.columns["sample"])

    def rows(self, numbers: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
        """Some rows as plain numbers."""
        found = {name: column[numbers].tolist() for name, column in self.columns.items()}
        return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]


def write_index(table: pa.Table, settings: dict[str, Any], slides: list[str], cohorts: list[str], output: Path) -> None:
    """Write the rows of all tiles, atomically."""
    header = json.dumps({"settings": settings, "slides": slides, "cohorts": cohorts})
    schema = SCHEMA.with_metadata({HEADER: header})
    batches = table.cast(SCHEMA).combine_chunks().to_batches()
    with atomic_path(output) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        for batch in batches:
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))


def read_index(path: Path) -> Index:
    """Map an index into memory.

    Raises:
        MidnightError: the file is missing or is no such index.
    """
    try:
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            header = json.loads((reader.schema.metadata or {})[HEADER])
            batch = reader.get_batch(0)
            columns = {name: batch.column(name).to_numpy(zero_copy_only=True) for name in SCHEMA.names}
            return Index(Path(path), columns, header["settings"], header["slides"], header["cohorts"])
    except (OSError, pa.ArrowException, KeyError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise MidnightError(f"{path}: not a readable index of tiles: {reason}; delete it and run again") from error
