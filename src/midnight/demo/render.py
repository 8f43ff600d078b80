"""From a scene to stain planes: ground textures upsampled and multiplied strip by strip, then nuclei stamped."""

import functools

import cv2
import numpy as np
import numpy.typing as npt

from midnight.demo.noise import Bytes, Floats, periodic_noise
from midnight.demo.nuclei import BANK_MPP, stamp
from midnight.demo.scene import Scene

PERIOD = 1024
STRIP = 512


@functools.cache
def textures(mpp: float) -> tuple[Bytes, Bytes]:
    """Fibre and grain texture, uint8 [p, p], periodic, 128 = mean; p·mpp = 256 µm. The same for every seed."""
    rng = np.random.Generator(np.random.Philox(2000))
    strands = periodic_noise(rng, PERIOD, 110, 5) + 0.6 * periodic_noise(rng, PERIOD, 60, 2.2)
    clefts = np.clip(periodic_noise(rng, PERIOD, 70, 7) - 1.35, 0, 0.8) / 0.8
    fibre = (1 + 0.22 * strands + 0.06 * periodic_noise(rng, PERIOD, 1.5, 1.5)) * (1 - 0.75 * clefts)
    clumps = 0.13 * periodic_noise(rng, PERIOD, 14, 14) + 0.12 * periodic_noise(rng, PERIOD, 3.5, 3.5)
    grain = 1 + clumps + 0.09 * periodic_noise(rng, PERIOD, 1.2, 1.2)
    return _texture(fibre, mpp), _texture(grain, mpp)


def _texture(field: Floats, mpp: float) -> Bytes:
    side = round(PERIOD * BANK_MPP / mpp)
    small = cv2.resize(field, (side, side), interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(small / small.mean() * 128), 0, 255).astype(np.uint8)


def render(scene: Scene, mpp: float, blur: float = 0.6) -> Bytes:
    """Stain planes of a scene.

    Args:
        scene: what to show.
        mpp: resolution, 0.25, 0.5 or 1 µm/px.
        blur: focus, standard deviation in px.

    Returns:
        uint8 [2, h, w], haematoxylin and eosin concentration (`stain.UNITS` = 1).
    """
    scale = round(1 / mpp)
    height, width = (side * scale for side in scene.classes.shape)
    planes = np.empty((2, height, width), np.uint8)
    for top in range(0, height, STRIP):
        planes[:, top : top + STRIP] = _ground(scene, mpp, top, min(STRIP, height - top))
    stamp(planes[0], scene.cells, mpp)
    for plane in planes:
        cv2.GaussianBlur(plane, (0, 0), blur, dst=plane)
    return planes


def _ground(scene: Scene, mpp: float, top: int, rows: int) -> Bytes:
    fibre, grain = textures(mpp)
    woven = _fibre_strip(scene, mpp, fibre, top, rows)
    side = len(grain)
    repeat = -(-woven.shape[1] // side)
    granular = np.tile(np.roll(grain, -(top % side), 0), (-(-rows // side), repeat))[:rows, : woven.shape[1]]
    strip = np.empty((2, rows, woven.shape[1]), np.uint8)
    for dye in range(2):
        threads = cv2.multiply(_upsample(scene.fibre[dye], mpp, top, rows), woven, scale=1 / 128)
        grains = cv2.multiply(_upsample(scene.grain[dye], mpp, top, rows), granular, scale=1 / 128)
        strip[dye] = cv2.add(threads, grains)
    return strip


def _upsample(field: npt.NDArray[np.generic], mpp: float, top: int, rows: int) -> np.ndarray:
    """Rows [top, top + rows) of a 1 µm/px field at `mpp`, without a seam between strips."""
    scale = round(1 / mpp)
    first, last = top // scale, -(-(top + rows) // scale)
    start, stop = max(first - 1, 0), min(last + 1, field.shape[0])
    part = np.ascontiguousarray(field[start:stop])
    full = cv2.resize(part, (field.shape[1] * scale, (stop - start) * scale))
    return full[top - start * scale :][:rows]


def _fibre_strip(scene: Scene, mpp: float, texture: Bytes, top: int, rows: int) -> Bytes:
    """Fibre texture along the scene's fibres: texture looked up at (u, v), see `Fibres`."""
    course = scene.fibres
    along = _upsample(course.along, mpp, top, rows)
    across = _upsample(course.across, mpp, top, rows)
    x = np.arange(along.shape[1], dtype=np.float32)[None] * mpp
    y = np.arange(top, top + rows, dtype=np.float32)[:, None] * mpp
    cos, sin = np.float32(np.cos(course.angle)), np.float32(np.sin(course.angle))
    mask = len(texture) - 1
    places = np.empty((*along.shape, 2), np.int16)
    for axis, (ramp_x, ramp_y, moved) in enumerate(((cos, sin, along), (-sin, cos, across))):
        moved = (moved + ramp_x * x + ramp_y * y) * np.float32(1 / mpp)
        places[..., axis] = moved.astype(np.int32) & mask
    return np.asarray(cv2.remap(texture, places, None, cv2.INTER_NEAREST), np.uint8)  # type: ignore[call-overload]
