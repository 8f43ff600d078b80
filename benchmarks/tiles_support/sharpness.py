"""How sharp tiles are: variance of the gradient, as a ratio to exact float area averages of level 0.

The peer's tiles are held against two references of the same upper left corner: at the µm/px that was asked for, and
at the one that its level really has.
"""

import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openslide
from tqdm import tqdm

from midnight.tissue.index import training_slides
from midnight.tissue.openslides import open_slide, read_rgb

from . import ours, peer
from .slides import MPP

SIZE = 256
TARGETS = (0.5, 1.0, 2.0)
LUMA = np.array([0.299, 0.587, 0.114])

Place = tuple[str, int, int, float, npt.NDArray[np.uint8]]
"""Path, x and y in level-0 px, µm/px, the tile."""


def gradient_variance(image: npt.NDArray[Any]) -> float:
    """Mean of the variances of the luma's differences across and down, levels²; of an RGB [h, w, 3] image."""
    luma = image.astype(np.float64) @ LUMA
    return float(np.diff(luma, axis=0).var() + np.diff(luma, axis=1).var()) / 2


def area_average(pixels: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.float64]:
    """Exact means of factor × factor px: uint8 [n · factor, m · factor, 3] to float64 [n, m, 3]."""
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return blocks.mean(axis=(1, 3), dtype=np.float64)


def reference(slide: openslide.OpenSlide, x: int, y: int, mpp: float) -> npt.NDArray[np.float64]:
    """What a tile at x, y (level-0 px) should show at `mpp` µm/px, a whole multiple of level 0's."""
    factor = round(mpp / MPP)
    return area_average(read_rgb(slide, (x, y), 0, (SIZE * factor, SIZE * factor)), factor)


def our_places(index: Path, mpp: float) -> Iterator[Place]:
    """Our tiles at one µm/px."""
    setting = ours.Setting(ours.NONE, (mpp,))
    stream = ours.make_stream(index, setting, batch=16)
    paths = {record.slide_id: record.path for record in training_slides(index)}
    names = stream.slides
    for batch in stream:
        rows = zip(*(batch[name].tolist() for name in ("slide", "x", "y")), batch["tiles"].numpy(), strict=True)
        for slide, x, y, pixels in rows:
            yield paths[names[slide]], x, y, mpp, pixels


def peer_places(slides: list[Path], mpp: float) -> Iterator[Place]:
    """The peer's tiles for one target, with the µm/px that they really have; of one slide, since each takes seconds."""
    for found in peer.pipeline(slides[:1], ours.NONE, (mpp,)):
        at = found.coordinate
        yield at.slide_path, at.x, at.y, float(at.mpp), found.image


def ratios(places: Iterator[Place], target: float, count: int) -> dict[str, float]:
    """Mean gradient variance of tiles over that of their references: at the target and at their own µm/px."""
    found: list[tuple[float, float, float]] = []
    mpp = target
    for path, x, y, mpp, pixels in itertools.islice(places, count):
        with open_slide(path) as slide:
            variances = {at: gradient_variance(reference(slide, x, y, at)) for at in {target, mpp}}
        found.append((gradient_variance(pixels), variances[target], variances[mpp]))
    tile, to_target, to_own = (statistics.mean(column) for column in zip(*found, strict=True))
    return {"mpp_read": mpp, "to_target": round(tile / to_target, 3), "to_own_mpp": round(tile / to_own, 3)}


def report(index: Path, slides: list[Path], count: int) -> dict[str, Any]:
    """Both sides' ratios at 0.5, 1 and 2 µm/px over `count` tiles each; 1 is right, below is blurred."""
    found = {}
    for target in tqdm(TARGETS, desc="sharpness", unit="mpp"):
        ours_, peers = (ratios(at, target, count) for at in (our_places(index, target), peer_places(slides, target)))
        found[f"{target:g}"] = {"ours": ours_, "peer": peers}
    return found
