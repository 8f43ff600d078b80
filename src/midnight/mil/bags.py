"""One HDF5 file per slide, in the form of TRIDENT and CLAM, and what it was made of.

`features` [N, D] and `coords` int64 [N, 2] (x, y of the tiles' upper left corners in level-0 px). `coords` has the
attributes that TRIDENT writes; `mpp` and `level0_mpp` are the exact ones beside its nominal magnifications.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from midnight.atomic import atomic_path
from midnight.config import Features
from midnight.mil.grid import Grid
from midnight.provenance import git_commit, versions
from midnight.tissue.index import TissueRecord
from midnight.tissue.resolution import MPP_AT_1X

FOLDER = "h5_files"
MARK = "midnight"
# The objectives that TRIDENT knows, each with the finest µm/px that it takes for the next one.
OBJECTIVES = ((0.16, 80), (0.2, 60), (0.3, 40), (0.6, 20), (1.2, 10))
WEAKEST = 5


@dataclass(frozen=True)
class Mark:
    """What a file was made of, and how it went.

    settings: as `midnight.mil.job.FeatureJob.settings`; slide: identity of the slide's file; tiles: N; damaged:
    tiles that could not be read; mpp: of level 0; seconds: from the first tile to the last.
    """

    settings: dict[str, Any]
    slide: str
    tiles: int
    damaged: int
    mpp: float
    seconds: float


def bag_path(output: Path, slide_id: str) -> Path:
    """The file of a slide."""
    return output / FOLDER / f"{slide_id}.h5"


def read_mark(path: Path) -> Mark | None:
    """What a file was made of; None if this program did not make it, or it is damaged."""
    try:
        with h5py.File(path, "r") as file:
            mark = json.loads(file.attrs[MARK])
            whole = len(file["features"]) == len(file["coords"]) == mark["tiles"]
        return Mark(**{name: mark[name] for name in Mark.__dataclass_fields__}) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_bag(
    path: Path,
    features: npt.NDArray[np.floating],
    kept: npt.NDArray[np.bool_],
    grid: Grid,
    record: TissueRecord,
    settings: Features,
    encoder: str,
    mark: Mark,
) -> None:
    """Write the file of a slide, atomically.

    Args:
        path: the file.
        features: [n, D], float16 or float32.
        kept: bool [N], which of the grid's tiles they are of; n are.
        grid: the slide's N tiles.
        record: the slide.
        settings: how its tiles were cut.
        encoder: name of the model.
        mark: what it was made of.

    Raises:
        MidnightError: it can't be written.
    """
    output = str(path.parent.absolute())
    place = {"name": record.slide_id, "savetodir": output}
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("features", data=features).attrs.update(place | {"encoder": encoder})
        coords = file.create_dataset("coords", data=grid.coords[kept])
        coords.attrs.update(place | _geometry(grid, record, settings))
        file.attrs[MARK] = json.dumps(vars(mark) | {"commit": git_commit(), "versions": versions()})


def _geometry(grid: Grid, record: TissueRecord, settings: Features) -> dict[str, Any]:
    power = MPP_AT_1X / settings.mpp
    return {
        "patch_size": settings.size,
        "patch_size_level0": grid.side,
        "overlap": settings.overlap,
        "level0_magnification": magnification(record.mpp),
        "target_magnification": round(power) if abs(power - round(power)) < 1e-6 else power,
        "mpp": settings.mpp,
        "level0_mpp": record.mpp,
        "level0_width": record.width,
        "level0_height": record.height,
    }


def magnification(mpp: float) -> int:
    """The nominal objective of a resolution, by TRIDENT's limits: 0.2525 µm/px is 40x."""
    return next((power for limit, power in OBJECTIVES if mpp < limit), WEAKEST)
