"""Block-wise masks of patches for iBOT, drawn as in BEiT and DINOv2."""

import math

import numpy as np
from numpy.typing import NDArray

MIN_BLOCK = 4
"""Smallest area of a block, patches."""
ASPECT = (0.3, 1 / 0.3)
"""Range of a block's aspect ratio, log-uniform."""
ATTEMPTS = 10
"""Blocks tried before the mask is taken as it is."""

Mask = NDArray[np.bool_]


def block_mask(grid: tuple[int, int], target: int, rng: np.random.Generator) -> Mask:
    """A mask bool [rows, columns] of rectangles that hide at most `target` patches, and at least one if target > 0.

    A rectangle covers half the grid at most, and never a whole row or column, as in DINOv2.
    """
    mask = np.zeros(grid, dtype=bool)
    largest = max(1, grid[0] // 2 * grid[1])
    while (room := target - int(mask.sum())) > 0:
        if not _add_block(mask, min(room, largest), rng):
            break
    if target > 0 and not mask.any():
        mask[tuple(rng.integers(grid))] = True
    return mask


def _add_block(mask: Mask, room: int, rng: np.random.Generator) -> bool:
    """Hide a rectangle with between 1 and `room` patches that were visible; False when none was found."""
    rows, columns = mask.shape
    for _ in range(ATTEMPTS):
        area = MIN_BLOCK + (room - MIN_BLOCK) * rng.random()  # downwards where less is left, as in DINOv2
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < height < rows and 0 < width < columns):
            continue
        top, left = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
        block = mask[top : top + height, left : left + width]
        if 0 < block.size - int(block.sum()) <= room:
            block[:] = True
            return True
    return False


def draw_masks(
    crops: int, grid: tuple[int, int], probability: float, ratio: tuple[float, float], rng: np.random.Generator
) -> Mask:
    """Masks bool [crops, rows · columns]: a share `probability` of the crops, in random order, has hidden patches.

    The masked crops share the range `ratio` of hidden shares among them in equal steps, as in DINOv2, so that a
    batch always has light and heavy masks.

    Args:
        crops: global crops in the batch.
        grid: rows and columns of patches.
        probability: share of crops with a mask.
        ratio: least and largest share of hidden patches.
        rng: where randomness comes from.
    """
    masked = int(crops * probability)
    edges = np.linspace(ratio[0], ratio[1], masked + 1)
    masks = np.zeros((crops, *grid), dtype=bool)
    for index in range(masked):
        share = rng.uniform(edges[index], edges[index + 1])
        masks[index] = block_mask(grid, int(grid[0] * grid[1] * share), rng)
    return masks[rng.permutation(crops)].reshape(crops, -1)


def step_masks(
    seed: int, rank: int, step: int, crops: int, grid: tuple[int, int], probability: float, ratio: tuple[float, float]
) -> Mask:
    """The masks of one micro-step: a pure function of seed, rank and step, so that resuming needs no state."""
    return draw_masks(crops, grid, probability, ratio, np.random.default_rng([seed, rank, step]))
