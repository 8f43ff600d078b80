"""The peer's side: wsistream's Midnight recipe, set up as fast as it goes.

As in its documentation, but with room in the pool for all slides, which are then never closed, its mask cache on,
and views kept as uint8. What it reads: the pyramid level nearest to each target, so 0.5 and 2 µm/px come from the
levels at 0.25 and 1 µm/px and are not resized.
"""

import importlib.util
from pathlib import Path
from typing import Any

from .ours import CROPS, HED, MPPS
from .timing import Side

RANGES = {"hue_range": (90, 180), "sat_range": (8, 255), "val_range": (103, 255)}
NEVER = 10**12
missing = importlib.util.find_spec("wsistream") is None


def _parts(mode: str, mpps: tuple[float, ...], slides: int) -> dict[str, Any]:
    """Arguments that PatchPipeline and WsiStreamDataset share."""
    from wsistream.backends import OpenSlideBackend
    from wsistream.filters import HSVPatchFilter
    from wsistream.sampling import MultiMagnificationSampler
    from wsistream.tissue import HSVTissueDetector
    from wsistream.transforms import ComposeTransforms, HEDColorAugmentation
    from wsistream.views import RandomResizedCrop, ViewConfig

    found: dict[str, Any] = {
        "backend": OpenSlideBackend(),
        "tissue_detector": HSVTissueDetector(**RANGES),
        "patch_filter": HSVPatchFilter(**RANGES, min_pixel_fraction=0.6),
        "sampler": MultiMagnificationSampler(
            target_mpps=list(mpps), patch_size=256, num_patches=-1, tissue_threshold=0.4
        ),
        "slide_sampling": "random",
        "pool_size": slides,
        "patches_per_slide": NEVER,
        "tissue_mask_cache_size": slides,
        "cycle": True,
        "seed": 5,
    }
    if mode == HED:
        found["transforms"] = ComposeTransforms(transforms=[HEDColorAugmentation(sigma=0.05)])
    if mode == CROPS:
        found["shared_transforms"] = HEDColorAugmentation(sigma=0.05)
        found["views"] = [
            ViewConfig(name="global", crop=RandomResizedCrop(size=224, scale=(0.32, 1.0)), count=2),
            ViewConfig(name="local", crop=RandomResizedCrop(size=98, scale=(0.05, 0.32)), count=8),
        ]
    return found


def pipeline(slides: list[Path], mode: str, mpps: tuple[float, ...] = MPPS) -> Any:
    """Its pipeline in this process; iterating gives PatchResults without end."""
    from wsistream.pipeline import PatchPipeline

    return PatchPipeline(slide_paths=[str(path) for path in slides], **_parts(mode, mpps, len(slides)))


def reads_per_tile(running: Any) -> float:
    """Tiles that a pipeline has read per tile that its filter accepted."""
    stats = running.stats
    return round(1 + stats.patches_filtered / stats.patches_extracted, 2)


def side(running: Any) -> Side:
    """A pipeline for `timing.drive`; its tiles are not even gathered into batches."""
    for _ in running:
        yield 1


def dataset(slides: list[Path], mode: str) -> Any:
    """Its own dataset for a DataLoader."""
    from wsistream.torch import WsiStreamDataset

    parts = _parts(mode, MPPS, len(slides))
    return WsiStreamDataset(slide_paths=[str(path) for path in slides], output_dtype="uint8", **parts)


def levels_read(slide: Path, mpps: tuple[float, ...] = MPPS) -> dict[float, float]:
    """Target µm/px: µm/px of the level that the peer reads for it."""
    from wsistream.backends import OpenSlideBackend
    from wsistream.slide import SlideHandle

    with SlideHandle(slide, OpenSlideBackend()) as handle:
        properties = handle.properties
        levels = {mpp: handle.best_level_for_mpp(mpp) for mpp in mpps}
        return {mpp: properties.mpp * properties.level_downsamples[level] for mpp, level in levels.items()}


def native(levels: dict[float, float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The µm/px that the peer really reads, each with how many targets it stands for."""
    read = sorted(set(levels.values()))
    return tuple(read), tuple(float(sum(level == mpp for level in levels.values())) for mpp in read)
