"""The resolution of a slide, and which resolutions tiles can be drawn at."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from midnight.errors import UnreadableError

# A slide at 0.2525 µm/px counts as 0.25: its tiles are scaled up by at most this share to the exact mpp.
TOLERANCE = 0.01
# Pixels of the two axes that differ by more than this are not square: tiles would be distorted.
ANISOTROPY = 0.02
# Outside of this range a value is a unit mistake (nm, inch, mm), not a microscope's.
PLAUSIBLE = (0.05, 20.0)
# Objectives of the same name differ by up to this share.
NOMINAL = 0.2
ADVICE = "give mpp in a CSV: path,mpp"
# The mpps that the index lists; a recipe may ask for others, which the sampler checks in the same way.
STANDARD_MPPS = (0.125, 0.25, 0.5, 1.0, 2.0)
# µm/px at 1x: a 40x objective scans at about 0.25 µm/px, a 20x at about 0.5.
MPP_AT_1X = 10.0
# Side of the tile by which a slide is judged too small, px [Midnight paper].
TILE = 256


class SlideError(UnreadableError):
    """One slide can't be used; the message is the reason that its record gets, and the run goes on."""


class DamagedError(SlideError):
    """One place of a slide can't be read; others may be fine."""


@dataclass(frozen=True)
class Resolution:
    """µm per level-0 px, where that figure comes from, and what the slide states where that is something else."""

    mpp: float
    source: str
    stated: str = ""


def find_resolution(properties: Mapping[str, str], declared: float | None = None) -> Resolution:
    """The resolution of a slide.

    In this order: the manifest, where a person gave it; `openslide.mpp-x/y`; objective power (10 µm/px at 1x). Nothing
    is guessed.

    Args:
        properties: OpenSlide's properties.
        declared: the manifest's µm/px, if it has one.

    Raises:
        SlideError: no resolution, pixels that are not square, or a value that no scanner has.
    """
    across, down = (_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
    power = _number(properties.get("openslide.objective-power"))
    if declared:
        return _plausible(Resolution(declared, "manifest", _contradiction(declared, across, down, power)))
    if across and down:
        if abs(across - down) > ANISOTROPY * max(across, down):
            raise SlideError(f"pixels are not square: {across:g} × {down:g} µm/px; if that is wrong, {ADVICE}")
        return _plausible(Resolution((across + down) / 2, "slide"))
    if power:
        return _plausible(Resolution(MPP_AT_1X / power, "objective power"))
    raise SlideError(f"no resolution: the slide states neither mpp nor objective power; {ADVICE}")


def _contradiction(declared: float, across: float | None, down: float | None, power: float | None) -> str:
    """What a slide states, in words, if that differs from what was declared."""
    if across and down:
        if max(abs(across - declared), abs(down - declared)) <= TOLERANCE * declared:
            return ""
        return f"{across:g} µm/px" if across == down else f"{across:g} × {down:g} µm/px"
    if power and abs(MPP_AT_1X / power - declared) > NOMINAL * declared:
        return f"an objective of {power:g}x, about {MPP_AT_1X / power:g} µm/px"
    return ""


def _number(text: str | None) -> float | None:
    """A positive finite number, or None: files state 0, "nan" and texts too."""
    try:
        value = float((text or "").replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _plausible(found: Resolution) -> Resolution:
    low, high = PLAUSIBLE
    if not low <= found.mpp <= high:
        advice = "mend it there" if found.source == "manifest" else ADVICE
        raise SlideError(
            f"absurd resolution: {found.mpp:g} µm/px from the {found.source} ({low}-{high} is possible); {advice}"
        )
    return found


def has_mpp(slide_mpp: float, target: float) -> bool:
    """Whether a slide is fine enough for `target` µm/px (within 1 %)."""
    return slide_mpp <= target * (1 + TOLERANCE) + 1e-9


def tile_fits(width: int, height: int, slide_mpp: float, size: int, target: float) -> bool:
    """Whether a tile of `size` px at `target` µm/px lies within a slide of `width` × `height` level-0 px."""
    side = size * target / slide_mpp
    return math.ceil(side - 1e-6) <= min(width, height)


def usable_mpps(
    width: int, height: int, slide_mpp: float, size: int = TILE, targets: Sequence[float] = STANDARD_MPPS
) -> list[float]:
    """Those of `targets` (µm/px) that the slide is fine enough for and at which one tile of `size` px fits."""
    return [
        target for target in targets if has_mpp(slide_mpp, target) and tile_fits(width, height, slide_mpp, size, target)
    ]


def nearest_finer(level_mpps: Sequence[float], target: float) -> int:
    """The coarsest level that is at least as fine as `target` µm/px (within 1 %), else level 0."""
    fine = [level for level, mpp in enumerate(level_mpps) if has_mpp(mpp, target)]
    return max(fine, key=lambda level: level_mpps[level], default=0)
