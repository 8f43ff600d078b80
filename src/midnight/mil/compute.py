"""From the tiles of a slide to its features."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from midnight.config import choose
from midnight.evaluate.encoder import Encoder, embed_images
from midnight.mil.ahead import Tiles

Pixels = npt.NDArray[np.uint8]
Launched = tuple[Tensor, torch.cuda.Event | None]


def features_of(
    chunks: Iterable[Future[Tiles]],
    encoder: Encoder,
    pooling: str,
    precision: str,
    batch_size: int,
    tell: Callable[[int], None],
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_]]:
    """The features of a slide, in batches; a GPU computes one while the tiles of the next are gathered.

    Args:
        chunks: the slide's tiles.
        encoder: the model.
        pooling: cls or cls_mean.
        precision: of `midnight.evaluate.encoder.STORED`.
        batch_size: tiles per forward pass.
        tell: called with the number of tiles of each batch.

    Returns:
        [n, D] or [n, 2D], and which of the tiles asked for could be read: bool [N], n of them True.

    Raises:
        SlideError: the slide can't be read (any more).
        MidnightError: the batch doesn't fit the GPU's memory, or slides are away.
    """
    width = width_of(pooling, encoder.dim)
    kept: list[npt.NDArray[np.bool_]] = []
    parts: list[Tensor] = []
    before: Launched | None = None
    for batch in _batches(_pixels(chunks, kept), batch_size):
        launched = _launch(encoder, batch, precision, width)
        tell(len(batch))
        parts += _landed(before)
        before = launched
    parts += _landed(before)
    features = torch.cat(parts).numpy() if parts else np.empty((0, width), np.float32)
    return features, np.concatenate(kept)


def width_of(pooling: str, dim: int) -> int:
    """How many of the [CLS ‖ mean of patches] numbers are kept, of a model with tokens of `dim`."""
    return choose(pooling, {"cls": dim, "cls_mean": 2 * dim}, "features.pooling")


def _pixels(chunks: Iterable[Future[Tiles]], kept: list[npt.NDArray[np.bool_]]) -> Iterator[Pixels]:
    for chunk in chunks:
        tiles = chunk.result()
        kept.append(tiles.kept)
        yield tiles.pixels


def _batches(pixels: Iterable[Pixels], size: int) -> Iterator[Pixels]:
    """The same tiles, `size` at a time, the last ones fewer."""
    held: list[Pixels] = []
    for part in pixels:
        while sum(map(len, held)) + len(part) >= size:
            room = size - sum(map(len, held))
            yield np.concatenate([*held, part[:room]])
            held, part = [], part[room:]
        held += [part] if len(part) else []
    if held:
        yield np.concatenate(held)


def _launch(encoder: Encoder, batch: Pixels, precision: str, width: int) -> Launched:
    """Features of a batch [B, width], and an event that tells when a GPU has delivered them."""
    device = encoder.device
    pixels = torch.from_numpy(batch)
    gpu = device.type == "cuda"
    images = (pixels.pin_memory() if gpu else pixels).to(device, non_blocking=True)
    pooled = embed_images(encoder, normalise(images, encoder), precision)[:, :width]
    features = pooled.contiguous().to("cpu", non_blocking=True)
    if not gpu:
        return features, None
    ready = torch.cuda.Event()
    ready.record()
    return features, ready


def _landed(launched: Launched | None) -> list[Tensor]:
    if launched is None:
        return []
    features, ready = launched
    if ready is not None:
        ready.synchronize()
    return [features]


def normalise(pixels: Tensor, encoder: Encoder) -> Tensor:
    """What the model takes: float32 [B, 3, S, S] of uint8 [B, S, S, 3], in 0–1 less its mean over its deviation."""
    mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (encoder.mean, encoder.std))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std
