"""Colour statistics as a model: how much of a task is solved by colour alone, without looking at any shape.

A token holds, for each of six channels (red, green, blue and the amounts of haematoxylin, eosin and DAB after Ruifrok
and Johnston), mean, standard deviation and the shares of pixels below three fixed levels. The CLS token is of the
whole image; each patch token of one patch. The mean of the patch tokens repeats means and shares of the whole image,
but its standard deviations are those within patches: how rough a patch is, which the image's own don't tell.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from midnight.tiles.augment.hed import HED_FROM_RGB

PATCH = 14
MEAN = STD = (0.5, 0.5, 0.5)
LEVELS = (-0.5, 0.0, 0.5)
DIM = 6 * (2 + len(LEVELS))
# Features of about unit size, as heads of all models are fitted with the same learning rate.
GAIN = 4.0


class ColourStatistics(nn.Module):
    """Images float32 [B, 3, S, S], normalised by MEAN and STD → tokens [B, 1 + (S/14)², DIM]; nothing is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.stains = nn.Parameter(torch.from_numpy(HED_FROM_RGB).float(), requires_grad=False)

    def forward_features(self, images: Tensor) -> Tensor:
        """The tokens (see the class).

        Raises:
            ValueError: the images can't be divided into patches.
        """
        if images.shape[-1] % PATCH or images.shape[-2] % PATCH:
            raise ValueError(f"not a multiple of the patch size {PATCH}")
        with torch.autocast(images.device.type, enabled=False):
            channels = self.channels(images.float())
            below = [(channels < level).float() for level in LEVELS]
            pooled = F.avg_pool2d(torch.cat([channels, channels.square(), *below], dim=1), PATCH)
            patches = pooled.flatten(2).transpose(1, 2)
            return describe(torch.cat([patches.mean(1, keepdim=True), patches], dim=1))

    def channels(self, images: Tensor) -> Tensor:
        """Red, green, blue and the three stains' amounts: float32 [B, 6, S, S], each within −1 and 1."""
        levels = (images * STD[0] + MEAN[0]).clamp(0, 1) * 255
        stains = torch.einsum("bchw,cs->bshw", -torch.log((levels + 1) / 256), self.stains)
        return torch.cat([images, 2 * stains.clamp(0, 1) - 1], dim=1)


def describe(moments: Tensor) -> Tensor:
    """Features [..., DIM] from means over pixels [..., DIM]: of each channel, of its square, of being below a level."""
    mean, square, below = moments.split([6, 6, DIM - 12], dim=-1)
    deviation = (square - mean.square()).clamp(min=0).sqrt()
    return GAIN * torch.cat([mean, deviation, below - 0.5], dim=-1)
