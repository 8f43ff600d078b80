"""Random HED augmentations of one tile (the paper's Fig. A1, right)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from midnight.report.figures import style
from midnight.tiles.augment.hed import augment

COLUMNS = 4


def variants(tile: np.ndarray, sigma: float, n: int = 7, seed: int = 0) -> list[np.ndarray]:
    """`n` independent HED augmentations of a tile uint8 [H, W, 3], as training draws them."""
    rng = np.random.default_rng(seed)
    return [augment(tile, rng, sigma) for _ in range(n)]


def draw_stain(tile: np.ndarray, augmented: Sequence[np.ndarray], output: Path, sigma: float, name: str = "") -> None:
    """A tile and its augmented variants in a grid of four columns.

    Args:
        tile: uint8 [H, W, 3], as read.
        augmented: uint8 [H, W, 3] each, augmented independently; any number.
        output: `stain-*.png`.
        sigma: the augmentation's strength, for the caption.
        name: slide or cohort of the tile, for the title.
    """
    images = [tile, *augmented]
    rows = -(-len(images) // COLUMNS)
    with style.figure(rows * 1.13 + 0.15) as drawn:
        axes = drawn.subplots(rows, COLUMNS, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for i, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
            axis.imshow(image, interpolation="lanczos")
            axis.set_title("as read" if i == 0 else f"draw {i}", fontsize=8, fontweight="bold" if i == 0 else "normal")
        change = [np.abs(variant.astype(float) - tile).mean() for variant in augmented]
        caption = f"One tile and {len(augmented)} independent draws, σ = {sigma:g}."
        caption += f" Mean absolute change of RGB: {np.mean(change):.1f} of 255." if change else ""
        title = f"HED augmentation{f' ({name})' if name else ''}"
        style.save(drawn, output, title, f"A tile and {len(augmented)} stain-augmented variants of it.", caption)
