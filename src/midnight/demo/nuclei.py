"""Nuclei: banks of ready-drawn sprites per kind, and how they are stamped on a plane."""

import functools
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from midnight.demo.classes import Nucleus
from midnight.demo.noise import Bytes, Floats

BANK_MPP = 0.25
ANGLES = 16
VARIANTS = 32


@dataclass(frozen=True)
class Look:
    """How nuclei of one kind look.

    Attributes:
        side: sprite's side, px at `BANK_MPP`, a multiple of 4.
        length: mean long axis, µm.
        ratio: mean short axis / long axis.
        spread: relative variation of the size between nuclei.
        lobes: relative irregularity of the outline.
        density: haematoxylin inside, plane units.
        clumps: contrast of the chromatin.
        grain: size of the chromatin's clumps, µm.
        rim: extra haematoxylin along the membrane, plane units.
        nucleoli: largest number of nucleoli.
    """

    side: int
    length: float
    ratio: float
    spread: float
    lobes: float
    density: float
    clumps: float
    grain: float
    rim: float
    nucleoli: int


LOOKS = {
    Nucleus.FIBROBLAST: Look(88, 13.0, 0.20, 0.28, 0.10, 108, 22, 0.6, 8, 0),
    Nucleus.EPITHELIAL: Look(48, 8.2, 0.72, 0.07, 0.02, 104, 12, 0.45, 14, 0),
    Nucleus.LYMPHOCYTE: Look(40, 6.6, 0.92, 0.07, 0.03, 122, 22, 0.55, 8, 0),
    Nucleus.TUMOUR: Look(76, 12.2, 0.74, 0.20, 0.09, 78, 26, 0.6, 36, 2),
    Nucleus.OTHER: Look(48, 8.0, 0.45, 0.20, 0.22, 165, 40, 0.5, 0, 0),
}


@dataclass(frozen=True)
class Bank:
    """Sprites of one kind at one resolution: haematoxylin and outline, both uint8 [variant, angle, side, side]."""

    density: Bytes
    outline: Bytes


def _radius(look: Look, theta: Floats, rng: np.random.Generator) -> tuple[Floats, float]:
    """Outline in polar form, px at `BANK_MPP`, and the long half-axis."""
    size = np.exp(np.clip(rng.normal(0, look.spread), -2 * look.spread, 2 * look.spread))
    a = look.length * size / 2 / BANK_MPP
    a = min(a, 0.44 * look.side)
    b = a * np.clip(look.ratio * np.exp(rng.normal(0, 0.12)), 0.15, 1.0)
    radius = a * b / np.sqrt((b * np.cos(theta)) ** 2 + (a * np.sin(theta)) ** 2)
    for harmonic in (2, 3, 4, 5):
        swing = 2 * look.lobes * rng.normal() / harmonic
        radius = radius * (1 + swing * np.cos(harmonic * theta + rng.uniform(0, 2 * np.pi)))
    return np.clip(radius, 0.3 * b, 0.46 * look.side).astype(np.float32), a


def _blurred(rng: np.random.Generator, side: int, sigma: float) -> Floats:
    field = cv2.GaussianBlur(rng.standard_normal((side, side), dtype=np.float32), (0, 0), sigma)
    return field / field.std()


def _draw(look: Look, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """One nucleus, long axis along x: haematoxylin and coverage (0–1), float32 [side, side]."""
    centre = (look.side - 1) / 2
    y, x = (np.mgrid[0 : look.side, 0 : look.side] - centre).astype(np.float32)
    radius, long_axis = _radius(look, np.arctan2(y, x), rng)
    distance = np.hypot(x, y)
    inside = radius - distance
    cover = np.clip(inside / 1.6 + 0.5, 0, 1)
    density = look.density * np.exp(rng.normal(0, 0.10)) + look.clumps * _blurred(rng, look.side, look.grain / BANK_MPP)
    density += look.rim * np.exp(-((inside / 1.8 - 1) ** 2))
    for _ in range(int(rng.integers(0, look.nucleoli + 1))):
        px, py = rng.uniform(-0.4, 0.4, 2) * (long_axis, long_axis * look.ratio)
        density += 75 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 2.4**2))
    return density * cover, cover


def _turned(image: Floats, degrees: float) -> Floats:
    centre = (image.shape[0] - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), -degrees, 1.0)
    return np.asarray(cv2.warpAffine(image, matrix, image.shape[::-1]), np.float32)


@functools.cache
def bank(kind: Nucleus, mpp: float) -> Bank:
    """The sprites of a kind at `mpp` µm/px (0.25, 0.5 or 1); angle k is turned by k·180/ANGLES degrees.

    The bank is part of the generator, the same for every seed: slides and benchmarks show the same kinds of cells.
    """
    look = LOOKS[kind]
    rng = np.random.Generator(np.random.Philox(1000 + int(kind)))
    side = round(look.side * BANK_MPP / mpp)
    sprites = np.zeros((2, VARIANTS, ANGLES, side, side), np.uint8)
    for variant in range(VARIANTS):
        density, cover = _draw(look, rng)
        for angle in range(ANGLES):
            for plane, image in enumerate((density, cover * 255)):
                turned = _turned(image, angle * 180 / ANGLES)
                small = cv2.resize(turned, (side, side), interpolation=cv2.INTER_AREA)
                sprites[plane, variant, angle] = np.clip(np.rint(small), 0, 255)
    return Bank(sprites[0], sprites[1])


@dataclass
class Cells:
    """Nuclei of a scene: float32 [n, 2] centres (x, y) in µm, uint8 kind, uint8 variant, uint8 angle index."""

    centre: npt.NDArray[np.float32]
    kind: npt.NDArray[np.uint8]
    variant: npt.NDArray[np.uint8]
    angle: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, chosen: npt.NDArray[np.generic]) -> "Cells":
        """The cells at these indices or where this mask holds."""
        return Cells(self.centre[chosen], self.kind[chosen], self.variant[chosen], self.angle[chosen])


def make_cells(
    rng: np.random.Generator,
    centre: npt.NDArray[np.float32],
    kind: Nucleus,
    direction: npt.NDArray[np.floating] | None = None,
) -> Cells:
    """Nuclei of one kind at these centres.

    Args:
        rng: source of randomness.
        centre: float32 [n, 2], (x, y) in µm.
        kind: kind of all.
        direction: float [n], of the long axis, radians; None = any.
    """
    n = len(centre)
    turn = rng.random(n) * np.pi if direction is None else np.asarray(direction)
    angle = np.rint(turn / np.pi * ANGLES).astype(np.int64) % ANGLES
    variant = rng.integers(0, VARIANTS, n, dtype=np.uint8)
    return Cells(centre.astype(np.float32), np.full(n, kind, np.uint8), variant, angle.astype(np.uint8))


def join_cells(parts: list[Cells]) -> Cells:
    """All parts as one."""
    return Cells(*(np.concatenate([getattr(part, name) for part in parts]) for name in Cells.__dataclass_fields__))


def _corners(cells: Cells, side: int, mpp: float) -> list[list[int]]:
    return (np.rint(cells.centre / mpp).astype(np.int64) - side // 2).tolist()


def stamp(plane: Bytes, cells: Cells, mpp: float) -> None:
    """Draw the nuclei on a haematoxylin plane, in place; where nuclei overlap the denser one wins.

    Args:
        plane: uint8 [h, w] at `mpp`.
        cells: nuclei, origin at the plane's upper left corner.
        mpp: 0.25, 0.5 or 1 µm/px.
    """
    margin = 48
    wide = cv2.copyMakeBorder(plane, margin, margin, margin, margin, cv2.BORDER_CONSTANT)
    visible = _visible(cells, plane.shape, mpp)
    for kind in Nucleus:
        sprites = bank(kind, mpp).density
        side = sprites.shape[-1]
        some = cells.take(visible & (cells.kind == kind))
        corners = _corners(some, side, mpp)
        for (x, y), variant, angle in zip(corners, some.variant.tolist(), some.angle.tolist(), strict=True):
            window = wide[y + margin : y + margin + side, x + margin : x + margin + side]
            np.maximum(window, sprites[variant, angle], out=window)
    plane[:] = wide[margin:-margin, margin:-margin]


def _visible(cells: Cells, shape: tuple[int, ...], mpp: float) -> npt.NDArray[np.bool_]:
    """Cells whose centre lies on the plane."""
    limit = np.array([shape[1], shape[0]]) * mpp
    return np.asarray(((cells.centre >= 0) & (cells.centre < limit)).all(1), bool)


def label(shape: tuple[int, int], cells: Cells, mpp: float) -> tuple[npt.NDArray[np.int32], Bytes]:
    """Exact instance and kind maps of the nuclei.

    Returns:
        int32 [h, w], 0 = none, else 1 + index of the cell; uint8 [h, w], 0 = none, else 1 + kind.
    """
    instances = np.zeros(shape, np.int32)
    for index in np.nonzero(_visible(cells, shape, mpp))[0]:
        kind = Nucleus(int(cells.kind[index]))
        outlines = bank(kind, mpp).outline
        side = outlines.shape[-1]
        ((x, y),) = _corners(cells.take(np.array([index])), side, mpp)
        mask = outlines[cells.variant[index], cells.angle[index]] > 127
        rows, columns = slice(max(y, 0), min(y + side, shape[0])), slice(max(x, 0), min(x + side, shape[1]))
        part = mask[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
        instances[rows, columns][part] = index + 1
    kinds = np.concatenate([[0], cells.kind.astype(np.int64) + 1]).astype(np.uint8)
    return instances, kinds[instances]
