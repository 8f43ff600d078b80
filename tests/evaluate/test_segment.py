"""Segmentation's data sets: what is held in memory is what eva would read again."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from midnight.evaluate.segment import Drawn


class Files:
    """Two fields with masks, as eva's data sets give them; counts how often each is read."""

    def __init__(self, transforms: Any = None) -> None:
        self.transforms = transforms
        self.read = 0

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Any, Any, dict[str, Any]]:
        if index >= len(self):
            raise IndexError(index)
        self.read += 1
        generator = torch.Generator().manual_seed(index)
        image = tv_tensors.Image(torch.randint(0, 256, (3, 40, 50 + index), dtype=torch.uint8, generator=generator))
        mask = tv_tensors.Mask(torch.randint(0, 6, (40, 50 + index), generator=generator))
        return (*(self.transforms(image, mask) if self.transforms else (image, mask)), {})


@pytest.fixture
def transforms() -> Any:
    mean = std = [0.5, 0.5, 0.5]
    return v2.Compose([v2.RandomResizedCrop(28), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])


def drawn(dataset: Any, index: int, seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    image, mask = dataset[index][:2]
    return image.as_subclass(Tensor), mask.as_subclass(Tensor)


def test_random_crops_are_those_of_evas_own_reading_but_files_are_read_once(transforms: Any) -> None:
    files, held = Files(transforms), Drawn(source := Files(), transforms)
    for index, seed in ((0, 1), (1, 2), (0, 3)):
        for ours, theirs in zip(drawn(held, index, seed), drawn(files, index, seed), strict=True):
            assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    assert not torch.equal(drawn(held, 0, 1)[0], drawn(held, 0, 3)[0])
    assert source.read == 2
    images, masks = held.__getitems__([1, 0, 1])
    assert images.shape == (3, 3, 28, 28) and masks.shape == (3, 28, 28) and masks.dtype == torch.int64
