"""A stand-in for CoNSeP: fields at 0.25 µm/px with the exact outline and kind of every nucleus."""

import io
from pathlib import Path

import cv2
import numpy as np
import scipy.io

from midnight.atomic import atomic_path
from midnight.demo.bench_common import draw_planes, fresh_folder, generator, own_look
from midnight.demo.classes import Nucleus, TissueClass
from midnight.demo.layout import draw_regions
from midnight.demo.nuclei import label

MPP = 0.25
SIDE = 500
GRID = 4
COUNTS = {"train": 27, "test": 14}

TYPES = {
    Nucleus.OTHER: 1,
    Nucleus.LYMPHOCYTE: 2,
    Nucleus.EPITHELIAL: 3,
    Nucleus.TUMOUR: 4,
    Nucleus.FIBROBLAST: 5,
}
"""CoNSeP's numbers: 1 other, 2 inflammatory, 3 healthy and 4 malignant epithelial, 5 fibroblast (6 and 7 unused)."""

MIX = {
    TissueClass.STROMA: 0.25,
    TissueClass.GLAND: 0.3,
    TissueClass.LYMPHOCYTES: 0.15,
    TissueClass.TUMOUR: 0.3,
}

HEADER = b"MATLAB 5.0 MAT-file, midnight demo, generated"


def write_consep(folder: Path, seed: int, scale: float) -> None:
    """Write `{Train,Test}/{Images/*.png,Labels/*.mat}` as eva's `CoNSeP` reads them: 27 and 14 fields.

    Keys of the labels: `inst_map` int32 [h, w], `type_map` uint8 [h, w], `inst_type` [n, 1], `inst_centroid` [n, 2].

    Args:
        folder: CoNSeP's root.
        seed: of everything.
        scale: below 1 the fields get smaller (500 px at 1, never below 250, which is one of eva's patches).
    """
    side = max(250, int(SIDE * min(1.0, scale**0.5)))
    for number, (split, count) in enumerate(COUNTS.items()):
        for canvas in range(-(-count // GRID**2)):
            first = canvas * GRID**2
            _write_canvas(folder / split.capitalize(), split, seed, (number, canvas), side, (first, count))


def _write_canvas(
    folder: Path, split: str, seed: int, part: tuple[int, int], side: int, numbers: tuple[int, int]
) -> None:
    rng = generator(seed, 4, *part)
    extent = int(GRID * side * MPP)
    classes = draw_regions(rng, (extent, extent), MIX, 150)
    scene, planes = draw_planes(rng, classes, MPP)
    instances, kinds = label((planes.shape[1], planes.shape[2]), scene.cells, MPP)
    lookup = np.zeros(len(Nucleus) + 1, np.uint8)
    for kind, value in TYPES.items():
        lookup[kind + 1] = value
    types = lookup[kinds]
    first, count = numbers
    for index in range(first, min(first + GRID**2, count)):
        row, column = divmod(index - first, GRID)
        window = (slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side))
        image = own_look(rng, np.ascontiguousarray(planes[:, *window]))
        _write_field(folder, f"{split}_{index + 1}", image, instances[window], types[window])


def _write_field(folder: Path, name: str, image: np.ndarray, instances: np.ndarray, types: np.ndarray) -> None:
    fresh_folder(folder / "Images")
    with atomic_path(folder / "Images" / f"{name}.png") as temporary:
        temporary.write_bytes(cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes())
    with atomic_path(folder / "Labels" / f"{name}.mat") as temporary:
        temporary.write_bytes(_mat(make_labels(instances, types)))


def make_labels(instances: np.ndarray, types: np.ndarray) -> dict[str, np.ndarray]:
    """CoNSeP's label keys for one field; instances are renumbered from 1 without gaps."""
    present, flat = np.unique(instances, return_inverse=True)
    offset = 0 if present[0] == 0 else 1
    numbered = (flat.reshape(instances.shape) + offset).astype(np.int32)
    counts = np.bincount(numbered.ravel())[1:]
    rows, columns = np.indices(numbered.shape)
    sums = [np.bincount(numbered.ravel(), axis.ravel())[1:] for axis in (columns, rows)]
    inst_type = np.zeros((len(counts), 1), np.uint8)
    inst_type[numbered[numbered > 0] - 1, 0] = types[numbered > 0]
    centroids = np.stack(sums, -1) / counts[:, None]
    return {"inst_map": numbered, "type_map": types, "inst_type": inst_type, "inst_centroid": centroids}


def _mat(values: dict[str, np.ndarray]) -> bytes:
    """A version 5 MAT-file without the time of writing in its first 116 bytes."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, values, do_compression=True)
    return HEADER.ljust(116) + buffer.getvalue()[116:]
