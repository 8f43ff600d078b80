"""The augmentation of whole batches of tiles on the training's device, for when CPU cores are few.

The draws are those of the CPU path, made by the same functions from the same generators, so a sample has the same
stains, boxes, orientations and colours on both. Crop, resize, flip and blur are one matrix per axis and view, so all
views of a batch are two batched matrix products. Nothing is rounded to 8 bits in between.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from midnight.config.recipe import Crops
from midnight.sending import per_channel, send
from midnight.tiles.augment.axis_map import BLUR_RADIUS
from midnight.tiles.augment.draws import Draws, draw_views
from midnight.tiles.augment.hed import StainShift, draw_shift
from midnight.tiles.draw.rng import Generators, Purpose


@dataclass(frozen=True)
class DeviceDraws:
    """`Draws` of B tiles as tensors on the device, each with a leading [B, V]."""

    boxes: Tensor
    turned: Tensor
    sigma: Tensor
    colour: Tensor
    coloured: Tensor
    solarized: Tensor

    def part(self, views: slice) -> "DeviceDraws":
        """Some of the views."""
        return DeviceDraws(*(getattr(self, field.name)[:, views] for field in fields(self)))


def stack(draws: list[Draws], device: torch.device) -> DeviceDraws:
    """The draws of several tiles, floats as float32, on `device`."""
    arrays = (np.stack([getattr(one, field.name) for one in draws]) for field in fields(DeviceDraws))
    tensors = (torch.from_numpy(array) for array in arrays)
    return DeviceDraws(*(send(tensor.float() if tensor.is_floating_point() else tensor, device) for tensor in tensors))


def shift_stains(tiles: Tensor, shifts: list[StainShift]) -> Tensor:
    """Shifted stains of tiles [B, 3, h, w], levels 0-255 as floats, not rounded."""
    maps = [shift.affine() for shift in shifts]
    matrix, offset = (
        send(torch.from_numpy(np.stack(parts)).to(tiles.dtype), tiles.device) for parts in zip(*maps, strict=True)
    )
    density = -torch.log((tiles.flatten(2) + 1) / 256)
    moved = torch.baddbmm(offset[:, :, None], matrix.transpose(1, 2), density)
    return (256 * torch.exp(-moved) - 1).clamp_(0, 255).view_as(tiles)


def _cubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _blur(sigma: Tensor, size: int) -> Tensor:
    """Gaussian blur with mirrored borders as matrices, of sigma [n] in px: [n, size, size]; 0 gives the identity."""
    reach = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=sigma.device)
    spread = sigma[:, None].clamp(min=1e-3)
    gauss = torch.exp(-0.5 * (reach / spread) ** 2) * (reach.abs() <= torch.ceil(3 * spread))
    gauss = torch.where(sigma[:, None] > 0, gauss, (reach == 0).to(gauss))
    gauss = gauss / gauss.sum(1, keepdim=True)
    period = max(1, 2 * (size - 1))
    place = (torch.arange(size, device=sigma.device)[:, None] + reach) % period
    place = torch.minimum(place, period - place)
    out = torch.zeros(len(sigma), size, size, device=sigma.device, dtype=sigma.dtype)
    return out.scatter_add_(2, place.expand(len(sigma), -1, -1), gauss[:, None].expand(-1, size, -1).contiguous())


def axis_matrix(start: Tensor, extent: Tensor, sigma: Tensor, flip: Tensor, size: int, side: int) -> Tensor:
    """What `axis_map.axis_weights` makes, as dense matrices that also crop and flip.

    Args:
        start: first px of the crop, [n].
        extent: px of the crop, [n].
        sigma: of the blur in output px, 0 = none, float [n].
        flip: bool [n].
        size: px of the output.
        side: px of the tile.

    Returns:
        float [n, size, side].
    """
    scale = (extent.to(sigma) / size)[:, None, None]
    stretch = scale.clamp(min=1)
    centre = (torch.arange(size, device=sigma.device)[:, None] + 0.5) * scale
    place = torch.arange(side, device=sigma.device) - start[:, None, None]
    inside = (place >= 0) & (place < extent[:, None, None])
    weights = _cubic((place + 0.5 - centre) / stretch) * inside
    weights = _blur(sigma, size) @ (weights / weights.sum(2, keepdim=True))
    return torch.where(flip[:, None, None], weights.flip(1), weights)


def resample_views(tiles: Tensor, draws: DeviceDraws, size: int) -> Tensor:
    """The cropped, resized, blurred and oriented views of tiles [B, 3, h, w], levels 0-255: [B, V, 3, size, size]."""
    (batch, _, height, width), views = tiles.shape, draws.boxes.shape[1]
    top, left, high, wide = draws.boxes.flatten(0, 1).unbind(1)
    swap, vertical, horizontal = draws.turned.flatten(0, 1).unbind(1)
    sigma = draws.sigma.flatten()
    # A view that is transposed afterwards has its flips the other way round.
    rows = axis_matrix(top, high, sigma, torch.where(swap, horizontal, vertical), size, height)
    columns = axis_matrix(left, wide, sigma, torch.where(swap, vertical, horizontal), size, width)
    half = rows.view(batch, views * size, height) @ tiles.transpose(1, 2).reshape(batch, height, 3 * width)
    half = half.clamp_(0, 255).view(batch * views, size * 3, width)
    out = (half @ columns.transpose(1, 2)).clamp_(0, 255).view(batch * views, size, 3, size).transpose(1, 2)
    out = torch.where(swap[:, None, None, None], out.transpose(2, 3), out)
    return out.view(batch, views, 3, size, size)


def photometric(images: Tensor, draws: DeviceDraws) -> Tensor:
    """Colour jitter, greyscale and solarize of images [B, V, 3, h, w], levels 0-255."""
    flat = images.flatten(3)
    offset = draws.colour[..., 3:] @ flat.mean(3, keepdim=True)
    out = (draws.colour[..., :3] @ flat + offset).clamp_(0, 255)
    out = torch.where(draws.solarized[..., None, None], torch.minimum(out, 255 - out), out)
    return out.view_as(images)


class DeviceAugment:
    """Stain augmentation, multi-crop views and normalisation of a batch of tiles on whatever device it is."""

    def __init__(self, crops: Crops, hed_sigma: float, seed: int) -> None:
        """Set up; nothing is drawn yet.

        Args:
            crops: sizes, scales, probabilities, mean and standard deviation.
            hed_sigma: strength of the stain augmentation, 0 = off.
            seed: of the run.
        """
        self._crops = crops
        self._sigma = hed_sigma
        self._generators = Generators(seed)

    def __call__(self, tiles: Tensor, index: Tensor) -> dict[str, Tensor]:
        """All views of the tiles.

        Args:
            tiles: RGB uint8 [B, S, S, 3].
            index: global numbers of the samples, int64 [B], best on the CPU: their draws are made there.

        Returns:
            `global_crops` float32 [B, 2, 3, G, G] and `local_crops` float32 [B, L, 3, S, S] on the tiles' device, as
            (level / 255 − mean) / std.
        """
        numbers = [int(number) for number in index.tolist()]
        draws = stack([self._draws(number, tiles) for number in numbers], tiles.device)
        with torch.no_grad(), torch.autocast(tiles.device.type, enabled=False):
            pixels = tiles.permute(0, 3, 1, 2).float()
            if self._sigma > 0:
                pixels = shift_stains(pixels, [self._shift(number) for number in numbers])
            return {
                "global_crops": self._views(pixels, draws.part(slice(2)), self._crops.global_size),
                "local_crops": self._views(pixels, draws.part(slice(2, None)), self._crops.local_size),
            }

    def _draws(self, number: int, tiles: Tensor) -> Draws:
        rng = self._generators.at(Purpose.CROPS, number)
        return draw_views(rng, self._crops, tiles.shape[1], tiles.shape[2])

    def _shift(self, number: int) -> StainShift:
        return draw_shift(self._generators.at(Purpose.STAIN, number), self._sigma)

    def _views(self, pixels: Tensor, draws: DeviceDraws, size: int) -> Tensor:
        images = photometric(resample_views(pixels, draws, size), draws) / 255
        mean, std = (per_channel(tuple(values), pixels.device) for values in (self._crops.mean, self._crops.std))
        return (images - mean) / std
