"""What the patch tokens hold: their three principal components as colours."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from midnight.report.figures import style


def patch_tokens(folder: Path, images: np.ndarray, size: int | None = None) -> np.ndarray:
    """Patch tokens of an exported model, on the CPU.

    Args:
        folder: `models/{run}/` with teacher.safetensors and model.json.
        images: uint8 [N, H, W, 3].
        size: side to which images are resized, px; the model's own by default.

    Returns:
        float32 [N, h, w, D], class and register tokens left out.
    """
    import torch

    from midnight.ssl.exports.model_folder import load_model

    loaded, card = load_model(folder)
    model: Any = loaded.eval()
    side = int(size or card["img_size"])
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    pixels = torch.nn.functional.interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(card[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        tokens = model.forward_features((pixels - mean) / std)
    grid = side // int(card["patch_size"])
    return tokens[:, -grid * grid :].reshape(len(images), grid, grid, -1).float().numpy()


def components(tokens: np.ndarray) -> np.ndarray:
    """First three principal components of tokens float [N, h, w, D] over all images, as colours in 0–1 [N, h, w, 3].

    Signs are fixed (the largest loading is positive) and each component is stretched between its 2nd and 98th
    percentile, so that the colours are reproducible; tokens without variance are grey.
    """
    flat = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
    flat = flat - flat.mean(0)
    _, _, axes = np.linalg.svd(flat, full_matrices=False)
    axes = axes[:3]
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
    projected = np.zeros((len(flat), 3))
    projected[:, : len(axes)] = flat @ axes.T
    low, high = np.percentile(projected, [2, 98], axis=0)
    spread = np.where(high - low > 1e-9, high - low, np.inf)
    scaled = np.where(np.isinf(spread), 0.5, (projected - low) / spread)
    return scaled.clip(0, 1).reshape(*tokens.shape[:3], 3)


def draw_patches(images: np.ndarray, tokens: Mapping[str, np.ndarray], output: Path) -> None:
    """A row per image: the image, then each model's component map.

    Args:
        images: uint8 [N, H, W, 3].
        tokens: model's label: patch tokens float [N, h, w, D] (h, w may differ between models).
        output: `pca-*.png`.
    """
    title = "Principal components of the patch tokens"
    if not tokens or not len(images):
        style.missing(output, title, "No model's patch tokens to show.")
        return
    maps = {label: components(values) for label, values in tokens.items()}
    columns = 1 + len(maps)
    with style.figure(len(images) * style.WIDTH / columns + 0.4) as drawn:
        axes = drawn.subplots(len(images), columns, squeeze=False)
        for row, image in enumerate(images):
            axes[row, 0].imshow(image)
            for axis, colours in zip(axes[row, 1:], maps.values(), strict=True):
                axis.imshow(colours[row], interpolation="nearest")
        for axis in axes.flat:
            axis.axis("off")
        for axis, label in zip(axes[0], ["tile", *maps], strict=True):
            axis.set_title("\n".join(textwrap.wrap(label, 16)), fontsize=8)
        alt = f"{len(images)} tiles and, for {', '.join(maps)}, the first three components of their patch tokens."
        caption = "Red, green and blue are the first three components, fitted per model over the tiles shown."
        style.save(drawn, output, title, alt, caption)
