"""Where which tissue lies: class maps at 1 µm/px, as exact ground truth and as plan of a scene."""

from collections.abc import Mapping

import cv2
import numpy as np

from midnight.demo.classes import TissueClass
from midnight.demo.noise import Bytes, jittered_lattice, rough_noise, smooth_noise

PLAN_MPP = 4
"""µm per pixel at which regions are planned before they are refined to 1 µm/px."""

SLIDE_MIX: Mapping[TissueClass, float] = {
    TissueClass.FAT: 0.12,
    TissueClass.STROMA: 0.22,
    TissueClass.GLAND: 0.22,
    TissueClass.LYMPHOCYTES: 0.16,
    TissueClass.TUMOUR: 0.28,
}


def draw_regions(
    rng: np.random.Generator, shape: tuple[int, int], mix: Mapping[TissueClass, float], spacing: float = 300.0
) -> Bytes:
    """Irregular regions of tissue that fill the whole area.

    Args:
        rng: source of randomness.
        shape: height and width, µm.
        mix: share of each class among the regions.
        spacing: distance of neighbouring regions' centres, µm.

    Returns:
        uint8 [height, width] of `TissueClass`, 1 µm/px.
    """
    plan = tuple(int(np.ceil(side / PLAN_MPP)) for side in shape)
    step = spacing / PLAN_MPP
    pad = int(step)
    seeds = jittered_lattice(rng, (plan[0] + 2 * pad, plan[1] + 2 * pad), step, 0.4) - pad
    labels = _draw_labels(rng, len(seeds), mix)
    nearest = _warped_voronoi(rng, (plan[0], plan[1]), seeds, step)
    return refine(labels[nearest], shape)


def _draw_labels(rng: np.random.Generator, n: int, mix: Mapping[TissueClass, float]) -> Bytes:
    """Classes of `n` regions whose counts follow the mix as closely as whole numbers can."""
    share = np.array(list(mix.values())) / sum(mix.values())
    edges = np.cumsum(share)
    ranks = (rng.permutation(n) + rng.random()) / n
    return np.array([int(c) for c in mix], np.uint8)[np.minimum(np.searchsorted(edges, ranks), len(share) - 1)]


def _warped_voronoi(rng: np.random.Generator, shape: tuple[int, int], seeds: np.ndarray, step: float) -> np.ndarray:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    x += rough_noise(rng, shape, step * 0.6) * step * 0.25
    y += rough_noise(rng, shape, step * 0.6) * step * 0.25
    best = np.full(shape, np.inf, np.float32)
    nearest = np.zeros(shape, np.int64)
    for index, (sx, sy) in enumerate(seeds):
        distance = (x - sx) ** 2 + (y - sy) ** 2
        closer = distance < best
        best[closer] = distance[closer]
        nearest[closer] = index
    return nearest


def refine(plan: Bytes, shape: tuple[int, int]) -> Bytes:
    """A plan at `PLAN_MPP` as a class map of `shape` at 1 µm/px, with smooth instead of stepped borders."""
    best = np.zeros(shape, np.uint8)
    classes = np.zeros(shape, np.uint8)
    for value in TissueClass:
        soft = cv2.GaussianBlur((plan == value).astype(np.uint8) * 255, (0, 0), 0.8)
        full = cv2.resize(soft, (plan.shape[1] * PLAN_MPP, plan.shape[0] * PLAN_MPP))[: shape[0], : shape[1]]
        better = full > best
        best[better] = full[better]
        classes[better] = value
    return classes


def draw_tissue(rng: np.random.Generator, shape: tuple[int, int], share: float = 0.68) -> np.ndarray:
    """Outline of one to three pieces of tissue on a slide: bool [height, width], 1 µm/px.

    Args:
        rng: source of randomness.
        shape: height and width, µm.
        share: tissue's share of the area.
    """
    plan = (shape[0] // PLAN_MPP + 1, shape[1] // PLAN_MPP + 1)
    y, x = np.mgrid[0 : plan[0], 0 : plan[1]].astype(np.float32)
    y, x = y / plan[0] - 0.5, x / plan[1] - 0.5
    pieces = int(rng.integers(1, 4))
    turn = rng.uniform(0, np.pi)
    along = x * np.cos(turn) + y * np.sin(turn)
    gap = np.abs(np.mod(along * pieces + 0.5 * (pieces % 2) - 0.5, 1) - 0.5) if pieces > 1 else np.zeros(plan)
    height = 0.25 * (1 - 8 * (x**4 + y**4) * 2) - 0.55 * np.maximum(gap - 0.40, 0)
    height += 0.03 * rough_noise(rng, plan, 0.35 * max(plan))
    height -= 0.12 * np.maximum(np.maximum(np.abs(x), np.abs(y)) - 0.44, 0) / 0.06
    height = height.astype(np.float32)
    level = np.quantile(height, 1 - share)
    full = cv2.resize(height, (plan[1] * PLAN_MPP, plan[0] * PLAN_MPP))[: shape[0], : shape[1]]
    return full > level


def draw_slide(rng: np.random.Generator, shape: tuple[int, int]) -> Bytes:
    """Class map of a whole slide: pieces of tissue of all classes on background; uint8 [height, width], 1 µm/px."""
    tilt = np.exp(rng.normal(0, 0.35, len(SLIDE_MIX)))
    mix = {value: share * factor for (value, share), factor in zip(SLIDE_MIX.items(), tilt, strict=True)}
    spacing = min(320.0, max(shape) / 3.2)
    classes = draw_regions(rng, shape, mix, spacing)
    classes[~draw_tissue(rng, shape)] = TissueClass.BACKGROUND
    return classes


def draw_nests(rng: np.random.Generator, shape: tuple[int, int], wavelength: float, share: float) -> np.ndarray:
    """Irregular cords that cover `share` of the area: bool [height, width], 1 µm/px."""
    field = rough_noise(rng, shape, wavelength, 2)
    return field > np.quantile(field[::4, ::4], 1 - share)


def draw_disks(rng: np.random.Generator, shape: tuple[int, int], spacing: float, radius: float) -> np.ndarray:
    """Rounded ducts of about `radius` µm, `spacing` apart: bool [height, width], 1 µm/px."""
    canvas = np.zeros(shape, np.uint8)
    for x, y in jittered_lattice(rng, shape, spacing, 0.15):
        axes = (int(radius * rng.uniform(0.8, 1.2)), int(radius * rng.uniform(0.8, 1.2)))
        cv2.ellipse(canvas, (int(x), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    wobble = 3.0 * smooth_noise(rng, shape, 25)
    inner = cv2.distanceTransform(canvas, cv2.DIST_L2, 3) - cv2.distanceTransform(1 - canvas, cv2.DIST_L2, 3)
    return inner + wobble > 0
