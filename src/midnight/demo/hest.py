"""Stand-ins for two tasks of HEST-bench: spots whose gene counts depend on the cells that they show."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from midnight.atomic import atomic_path, write_json, write_text
from midnight.demo.beer_lambert import colourise, draw_stain
from midnight.demo.bench_common import draw_planes, generator
from midnight.demo.classes import Nucleus, TissueClass
from midnight.demo.layout import draw_regions
from midnight.demo.noise import Bytes
from midnight.demo.scene import Scene

MPP = 0.5
SIDE = 224
PITCH_UM = 100
GRID = (8, 12)
PATIENTS = (0, 0, 1, 2)
"""Patient of each sample; the folds leave one patient out."""

GENES = 50
SILENT = 14
"""Genes that are measured but not among the 50, and depend on nothing that can be seen."""

TASKS: dict[str, dict[TissueClass, float]] = {
    "DEMO_A": {
        TissueClass.FAT: 0.05,
        TissueClass.STROMA: 0.25,
        TissueClass.GLAND: 0.2,
        TissueClass.LYMPHOCYTES: 0.2,
        TissueClass.TUMOUR: 0.3,
    },
    "DEMO_B": {TissueClass.STROMA: 0.3, TissueClass.LYMPHOCYTES: 0.3, TissueClass.TUMOUR: 0.4},
}


@dataclass(frozen=True)
class Programme:
    """How a task's genes answer to what a spot shows.

    log rate = base + weights·features; float [genes], [genes, features].
    """

    base: np.ndarray
    weights: np.ndarray


def write_hest(folder: Path, seed: int, scale: float, task: str) -> None:
    """Write one task: `splits/{train,test}_{k}.csv`, `patches/{id}.h5`, `adata/{id}.h5ad`, `var_50genes.json`.

    Four samples of three patients, 96 spots each at scale 1 (a grid of 100 µm); patches of 224 px at 0.5 µm/px; counts
    are negative binomial (gamma–Poisson) with a log rate that is linear in the exact class mix and nuclei density of
    the patch. A sample's stain does not depend on its classes. `obs` holds the class mix, for checks.

    Args:
        folder: the task's folder.
        seed: of everything.
        scale: multiplies the number of spots.
        task: `DEMO_A` or `DEMO_B`.
    """
    number = list(TASKS).index(task)
    programme = draw_programme(generator(seed, 5, number))
    rows = max(3, round(GRID[0] * min(scale, 4.0) ** 0.5))
    columns = max(4, round(GRID[1] * min(scale, 4.0) ** 0.5))
    names = [f"{task}_S{index + 1}" for index in range(len(PATIENTS))]
    for index, name in enumerate(names):
        rng = generator(seed, 6, number, index)
        _write_sample(folder, name, rng, programme, task, (rows, columns))
    for fold in range(max(PATIENTS) + 1):
        for split, chosen in (("train", False), ("test", True)):
            some = [name for name, patient in zip(names, PATIENTS, strict=True) if (patient == fold) == chosen]
            write_text(folder / "splits" / f"{split}_{fold}.csv", _split_table(some))
    write_json(folder / "var_50genes.json", {"genes": gene_names()[:GENES]})


def gene_names() -> list[str]:
    """Names of all genes, plainly made up; the first 50 are those of the task."""
    return [f"DEMO{index + 1:03d}" for index in range(GENES + SILENT)]


def _split_table(names: list[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sample_id", "patches_path", "expr_path"])
    writer.writerows([name, f"patches/{name}.h5", f"adata/{name}.h5ad"] for name in names)
    return text.getvalue()


def draw_programme(rng: np.random.Generator) -> Programme:
    """Weights of the 50 genes, a few features each; the silent genes have none."""
    features = len(TissueClass) - 1 + len(Nucleus)
    weights = rng.normal(0, 0.55, (GENES + SILENT, features)) * (rng.random((GENES + SILENT, features)) < 0.45)
    weights[GENES:] = 0
    return Programme(rng.uniform(0.8, 2.6, GENES + SILENT), weights)


def measure(scene: Scene, corner: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """What a patch shows, exactly.

    Args:
        scene: the sample.
        corner: upper left corner (x, y) of the patch, µm.

    Returns:
        Shares of the classes FAT … TUMOUR in the patch, float [5]; nuclei per kind per 1000 µm², float [kinds].
    """
    x, y = corner
    extent = int(SIDE * MPP)
    window = scene.classes[y : y + extent, x : x + extent]
    shares = np.array([(window == value).mean() for value in TissueClass if value])
    centre = scene.cells.centre - np.array([x, y])
    inside = ((centre >= 0) & (centre < extent)).all(1)
    counts = np.bincount(scene.cells.kind[inside], minlength=len(Nucleus))
    return shares, counts / extent**2 * 1000


def draw_counts(rng: np.random.Generator, features: np.ndarray, programme: Programme) -> np.ndarray:
    """Raw counts of one sample's spots: float32 [spots, genes].

    Args:
        rng: source of randomness.
        features: float [spots, features], as from `measure`.
        programme: the task's.
    """
    depth = rng.normal(0, 0.12) + rng.normal(0, 0.12, (len(features), 1))
    rate = np.exp(np.clip(programme.base + features @ programme.weights.T + depth, -3, 7))
    return rng.poisson(rng.gamma(12.0, rate / 12.0)).astype(np.float32)


def _write_sample(
    folder: Path, name: str, rng: np.random.Generator, programme: Programme, task: str, grid: tuple[int, int]
) -> None:
    pad = int(SIDE * MPP) - PITCH_UM
    shape = (grid[0] * PITCH_UM + pad, grid[1] * PITCH_UM + pad)
    scene, planes = draw_planes(rng, draw_regions(rng, shape, TASKS[task], 230), MPP)
    image = colourise(planes[0], planes[1], draw_stain(rng))
    corners = [(column * PITCH_UM, row * PITCH_UM) for row in range(grid[0]) for column in range(grid[1])]
    measured = [measure(scene, corner) for corner in corners]
    shares = np.stack([share for share, _ in measured])
    # Densities of a few nuclei per 1000 µm² count about as much as shares between 0 and 1.
    features = np.concatenate([shares * 2, np.stack([density for _, density in measured]) / 4], 1)
    counts = draw_counts(rng, features, programme)
    barcodes = [f"{name}-{index:04d}" for index in range(len(corners))]
    _write_patches(folder / "patches" / f"{name}.h5", image, corners, barcodes)
    _write_expression(folder / "adata" / f"{name}.h5ad", counts, shares, corners, barcodes)


def _write_patches(path: Path, image: Bytes, corners: list[tuple[int, int]], barcodes: list[str]) -> None:
    pixels = [(round(x / MPP), round(y / MPP)) for x, y in corners]
    images = np.stack([image[y : y + SIDE, x : x + SIDE] for x, y in pixels])
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("img", data=images, chunks=(1, SIDE, SIDE, 3), compression="gzip", compression_opts=1)
        file.create_dataset("barcode", data=np.array(barcodes, "S")[:, None])
        file.create_dataset("coords", data=np.array(pixels, np.int64))


def _write_expression(
    path: Path, counts: np.ndarray, shares: np.ndarray, corners: list[tuple[int, int]], barcodes: list[str]
) -> None:
    import anndata
    import pandas as pd

    names = [value.name.lower() for value in TissueClass if value]
    obs = pd.DataFrame(shares, index=pd.Index(barcodes, dtype=object), columns=names)
    var = pd.DataFrame(index=pd.Index(gene_names(), dtype=object))
    spatial = np.array(corners, np.float64) / MPP + SIDE / 2
    table = anndata.AnnData(X=counts, obs=obs, var=var, obsm={"spatial": spatial})
    with atomic_path(path) as temporary:
        table.write_h5ad(temporary)
