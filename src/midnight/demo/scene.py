"""A scene: everything that can be seen on a piece of slide, before stain, resolution and colour."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from midnight.demo.classes import Nucleus, TissueClass
from midnight.demo.glands import Glands, GlandStyle, draw_glands
from midnight.demo.noise import Bytes, Floats, jittered_lattice, rough_noise, smooth_noise
from midnight.demo.nuclei import Cells, join_cells, make_cells


@dataclass(frozen=True)
class Fibres:
    """Course of collagen fibres: they run along lines of equal v.

    u = x·cos + y·sin + along, v = −x·sin + y·cos + across, in µm; `along`, `across` float32 [h, w] at 1 µm/px.
    """

    angle: float
    along: Floats
    across: Floats

    def direction(self, points: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
        """Direction of the fibres at points (x, y) in µm: radians [n]."""
        column, row = _pixels(points, self.across.shape)
        height, width = self.across.shape
        left, right = np.maximum(column - 4, 0), np.minimum(column + 4, width - 1)
        up, down = np.maximum(row - 4, 0), np.minimum(row + 4, height - 1)
        vx = (self.across[row, right] - self.across[row, left]) / 8 - np.sin(self.angle)
        vy = (self.across[down, column] - self.across[up, column]) / 8 + np.cos(self.angle)
        return np.arctan2(-vx, vy)


@dataclass(frozen=True)
class Scene:
    """What lies on a piece of slide.

    Attributes:
        classes: uint8 [h, w], `TissueClass` at 1 µm/px: the exact truth.
        fibre: uint8 [2, h, w], haematoxylin and eosin of fibrous ground, 1 µm/px.
        grain: uint8 [2, h, w], the same of cytoplasm and other granular ground.
        fibres: course of the fibres.
        cells: all nuclei.
    """

    classes: Bytes
    fibre: Bytes
    grain: Bytes
    fibres: Fibres
    cells: Cells


COLLAGEN = (16, 58)
TUMOUR_PLASM = (26, 46)
GLAND_PLASM = (18, 56)
LYMPHOID = (16, 44)
MEMBRANE = (8, 40)
"""Haematoxylin and eosin of each ground, plane units. Alike on purpose: architecture tells a class, not colour."""

SPACING = {
    Nucleus.FIBROBLAST: 22.0,
    Nucleus.LYMPHOCYTE: 8.0,
    Nucleus.TUMOUR: 12.5,
}
"""Mean distance of neighbouring nuclei in their own tissue, µm."""

ODD_SHARE = 0.04
"""Share of tumour cells that divide or die."""


def build_scene(rng: np.random.Generator, classes: Bytes, glands: GlandStyle | None = None) -> Scene:
    """Fill a class map with fibres, cytoplasm, glands, fat cells and nuclei.

    Args:
        rng: source of randomness.
        classes: uint8 [h, w] of `TissueClass`, 1 µm/px.
        glands: how glands look; None = normal glands.
    """
    shape = classes.shape
    fibres = _draw_fibres(rng, (shape[0], shape[1]))
    ducts = draw_glands(rng, classes == TissueClass.GLAND, glands or GlandStyle())
    nests = (classes == TissueClass.TUMOUR) & ~_septa(rng, (shape[0], shape[1]))
    collagen = _collagen(classes, nests, ducts)
    fibre, grain = _grounds(rng, classes, collagen, nests, ducts)
    cells = _populate(rng, classes, collagen, nests, ducts, fibres)
    return Scene(classes, fibre, grain, fibres, cells)


def _pixels(points: npt.NDArray[np.float32], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    index = points.astype(np.int64)
    return np.clip(index[:, 0], 0, shape[1] - 1), np.clip(index[:, 1], 0, shape[0] - 1)


def _draw_fibres(rng: np.random.Generator, shape: tuple[int, int]) -> Fibres:
    small = (shape[0] // 4 + 1, shape[1] // 4 + 1)
    across = 40 * smooth_noise(rng, small, 60) + 6 * smooth_noise(rng, small, 14)
    along = 30 * smooth_noise(rng, small, 60)
    size = (small[1] * 4, small[0] * 4)
    full = [np.asarray(cv2.resize(field, size)[: shape[0], : shape[1]], np.float32) for field in (along, across)]
    return Fibres(float(rng.uniform(0, np.pi)), full[0], full[1])


def _septa(rng: np.random.Generator, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Thin strands of stroma between nests of tumour."""
    return np.abs(smooth_noise(rng, shape, 75)) < 0.06


def _collagen(classes: Bytes, nests: npt.NDArray[np.bool_], ducts: Glands) -> npt.NDArray[np.bool_]:
    septa = (classes == TissueClass.TUMOUR) & ~nests
    between = (classes == TissueClass.GLAND) & (ducts.epithelium == 0)
    return (classes == TissueClass.STROMA) | septa | between


def _grounds(
    rng: np.random.Generator,
    classes: Bytes,
    collagen: npt.NDArray[np.bool_],
    nests: npt.NDArray[np.bool_],
    ducts: Glands,
) -> tuple[Bytes, Bytes]:
    shape = (classes.shape[0], classes.shape[1])
    thickness = 1 + 0.16 * rough_noise(rng, shape, 220, 2)
    lymphoid = classes == TissueClass.LYMPHOCYTES
    plasm = ducts.epithelium > 0
    fibre = np.stack([_soft(collagen * np.uint8(dye), 1.2) * thickness for dye in COLLAGEN])
    amounts = []
    for dye in range(2):
        ground = nests * np.uint8(TUMOUR_PLASM[dye]) + lymphoid * np.uint8(LYMPHOID[dye])
        ground = np.where(plasm, np.uint8(GLAND_PLASM[dye]), ground)
        ground = _soft(ground.astype(np.uint8), 0.8)
        ground += draw_membranes(classes, ducts.seed) * np.float32(MEMBRANE[dye] / 255)
        amounts.append(ground * thickness)
    lumen = 1 - _soft(ducts.lumen, 0.8) / 255
    grain = np.stack(amounts) * lumen
    return np.clip(fibre * lumen, 0, 255).astype(np.uint8), np.clip(grain, 0, 255).astype(np.uint8)


def _soft(image: Bytes, sigma: float) -> Floats:
    return cv2.GaussianBlur(image, (0, 0), sigma).astype(np.float32)


def draw_membranes(classes: Bytes, seed: int, spacing: float = 62.0) -> Bytes:
    """Thin walls between round, empty fat cells: uint8 [h, w] (255 = wall) at 1 µm/px."""
    fat = classes == TissueClass.FAT
    if not fat.any():
        return np.zeros(classes.shape, np.uint8)
    rng = np.random.Generator(np.random.Philox(seed))
    shape = (classes.shape[0], classes.shape[1])
    seeds = np.ones(shape, np.uint8)
    points = jittered_lattice(rng, shape, spacing, 0.28).astype(np.int64)
    seeds[points[:, 1], points[:, 0]] = 0
    _, owner = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    wall = np.zeros(shape, bool)
    wall[:, 1:] |= owner[:, 1:] != owner[:, :-1]
    wall[1:] |= owner[1:] != owner[:-1]
    wall |= cv2.morphologyEx(fat.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    return np.where(fat, cv2.GaussianBlur(wall.astype(np.uint8) * 255, (0, 0), 0.7), 0).astype(np.uint8)


def _scatter(
    rng: np.random.Generator, where: npt.NDArray[np.bool_], spacing: float, keep: float = 1.0, jitter: float = 0.34
) -> npt.NDArray[np.float32]:
    points = jittered_lattice(rng, (where.shape[0], where.shape[1]), spacing, jitter)
    column, row = _pixels(points, where.shape)
    chosen = where[row, column]
    if keep < 1:
        chosen &= rng.random(len(points)) < keep
    return points[chosen]


def _populate(
    rng: np.random.Generator,
    classes: Bytes,
    collagen: npt.NDArray[np.bool_],
    nests: npt.NDArray[np.bool_],
    ducts: Glands,
    fibres: Fibres,
) -> Cells:
    spindle = _scatter(rng, collagen, SPACING[Nucleus.FIBROBLAST], 0.8, 0.5)
    bend = rng.normal(0, 0.16, len(spindle))
    lymphoid = _scatter(rng, classes == TissueClass.LYMPHOCYTES, SPACING[Nucleus.LYMPHOCYTE], 0.93)
    strays = _scatter(rng, collagen | nests, 40.0, 0.35, 0.5)
    tumour = _scatter(rng, nests, SPACING[Nucleus.TUMOUR], 0.95)
    odd = rng.random(len(tumour)) < ODD_SHARE
    return join_cells(
        [
            make_cells(rng, spindle, Nucleus.FIBROBLAST, fibres.direction(spindle) + bend),
            make_cells(rng, ducts.nuclei, Nucleus.EPITHELIAL, ducts.direction),
            make_cells(rng, np.concatenate([lymphoid, strays]), Nucleus.LYMPHOCYTE),
            make_cells(rng, tumour[~odd], Nucleus.TUMOUR),
            make_cells(rng, tumour[odd], Nucleus.OTHER),
        ]
    )
