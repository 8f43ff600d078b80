"""Glands: rings of epithelium with basal nuclei round an empty lumen."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from midnight.demo.noise import Bytes, jittered_lattice

_SHIFT = 4
_POINTS = 72


@dataclass(frozen=True)
class GlandStyle:
    """How glands look.

    Attributes:
        spacing: distance of neighbouring glands' centres, µm.
        radius: mean outer radius, µm.
        lumen: lumen's radius as a share of the outer one.
        wobble: relative irregularity of the outline.
        pitch: distance of neighbouring nuclei along the ring, µm.
    """

    spacing: float = 88.0
    radius: float = 38.0
    lumen: float = 0.40
    wobble: float = 0.06
    pitch: float = 7.2


@dataclass(frozen=True)
class Glands:
    """All glands of a scene.

    Attributes:
        epithelium: uint8 [h, w] at 1 µm/px, 255 inside glands, lumen included.
        lumen: uint8 [h, w], 255 in lumens.
        nuclei: float32 [n, 2], centres (x, y) in µm.
        direction: float [n], radians: nuclei stand upright on the gland's outline.
        seed: for what is drawn later in this scene.
    """

    epithelium: Bytes
    lumen: Bytes
    nuclei: npt.NDArray[np.float32]
    direction: npt.NDArray[np.floating]
    seed: int


def draw_glands(rng: np.random.Generator, where: npt.NDArray[np.bool_], style: GlandStyle) -> Glands:
    """Draw glands whose centres lie inside `where` (bool [h, w], 1 µm/px) and not at its very border."""
    shape = where.shape
    epithelium, lumen = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    seed = int(rng.integers(2**31))
    centres = jittered_lattice(rng, (shape[0], shape[1]), style.spacing, 0.12)
    pixels = centres.astype(np.int64)
    core = cv2.erode(where.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=int(style.radius * 0.55))
    centres = centres[core[pixels[:, 1], pixels[:, 0]] > 0]
    nuclei, directions = [], []
    for centre in centres:
        theta, outline = _outline(rng, style)
        _fill(epithelium, centre, theta, outline)
        _fill(lumen, centre, theta, outline * style.lumen * rng.uniform(0.75, 1.25))
        for depth, share in ((5.2, 1.0), (9.5, 0.25)):
            points, turn = _ring(rng, centre, theta, outline - depth, style.pitch)
            some = rng.random(len(points)) < share
            nuclei.append(points[some])
            directions.append(turn[some])
    if not nuclei:
        return Glands(epithelium, lumen, np.zeros((0, 2), np.float32), np.zeros(0), seed)
    return Glands(epithelium, lumen, np.concatenate(nuclei), np.concatenate(directions), seed)


def _outline(rng: np.random.Generator, style: GlandStyle) -> tuple[np.ndarray, np.ndarray]:
    theta = np.linspace(0, 2 * np.pi, _POINTS, endpoint=False)
    radius = np.full(_POINTS, style.radius * rng.uniform(0.85, 1.12))
    for harmonic in (2, 3, 4, 5):
        swing = style.wobble * rng.normal() * (2 / harmonic)
        radius *= 1 + swing * np.cos(harmonic * theta + rng.uniform(0, 2 * np.pi))
    return theta, radius


def _points(centre: np.ndarray, theta: np.ndarray, radius: np.ndarray) -> np.ndarray:
    return centre + radius[:, None] * np.stack([np.cos(theta), np.sin(theta)], -1)


def _fill(canvas: Bytes, centre: np.ndarray, theta: np.ndarray, radius: np.ndarray) -> None:
    polygon = np.rint(_points(centre, theta, radius) * 2**_SHIFT).astype(np.int32)
    cv2.fillPoly(canvas, [polygon], 255, cv2.LINE_AA, _SHIFT)


def _ring(
    rng: np.random.Generator, centre: np.ndarray, theta: np.ndarray, radius: np.ndarray, pitch: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.floating]]:
    """Places at even distance along a closed curve, each moved a little, and their radial directions."""
    count = max(int(2 * np.pi * radius.mean() / pitch), 3)
    turn = (np.arange(count) + rng.uniform(-0.22, 0.22, count)) * 2 * np.pi / count + rng.uniform(0, 2 * np.pi)
    distance = np.interp(turn, theta, radius, period=2 * np.pi) + rng.normal(0, 0.8, count)
    return _points(centre, turn, distance).astype(np.float32), turn
