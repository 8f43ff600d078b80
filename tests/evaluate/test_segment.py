"""Segmentation's data sets: what is held in memory is what eva would read again."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from midnight.errors import MidnightError
from midnight.evaluate.encoder import patch_map
from midnight.evaluate.entries import Task
from midnight.evaluate.quiet import quiet
from midnight.evaluate.segment import Drawn, MapEncoder, build_module, check_frozen, fit_segmentation, open_datasets
from tests.evaluate.eva_example import SIZE, tiny


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


def test_the_encoder_stays_frozen_and_its_maps_are_normalised(
    data: Path, model_dir: Path, tasks: dict[str, Task]
) -> None:
    encoder = tiny(model_dir)
    values = fit_segmentation(tasks["consep"], encoder, data / "consep", SIZE, "cpu", seed=0)
    assert len(values) == 2
    assert all(0 <= value <= 1 for value in values)
    maps = MapEncoder(encoder, memo=False)(torch.randn(2, 3, SIZE, SIZE))[0]
    assert maps.shape == (2, 32, 2, 2)
    # LayerNorm at init: each token has mean 0 and variance 1.
    assert torch.allclose(maps.mean(1), torch.zeros(2, 2, 2), atol=1e-5)
    assert torch.allclose(maps.var(1, unbiased=False), torch.ones(2, 2, 2), atol=1e-3)


def test_a_thawed_encoder_is_noticed(data: Path, make_model: Callable[[int], Path], tasks: dict[str, Task]) -> None:
    encoder = tiny(make_model(0))
    module = build_module(tasks["consep"], encoder)
    module.configure_model()
    groups = module.configure_optimizers()["optimizer"].param_groups
    trained = {id(value) for group in groups for value in group["params"]}
    assert not trained & {id(value) for value in encoder.tokens.parameters()}
    assert groups[0]["weight_decay"] == 0.05
    next(encoder.tokens.parameters()).requires_grad = True
    with pytest.raises(MidnightError, match="the encoder is not frozen"):
        check_frozen(encoder)
    with pytest.raises(MidnightError, match="the encoder is not frozen"):
        fit_segmentation(tasks["consep"], encoder, data / "consep", SIZE, "cpu", seed=0)


def test_remembered_maps_are_the_computed_ones(make_model: Callable[[int], Path]) -> None:
    encoder = tiny(make_model(4))
    remembering, computing = MapEncoder(encoder, memo=True), MapEncoder(encoder, memo=False)
    images = torch.randn(5, 3, SIZE, SIZE)
    remembering(images[:3])
    assert len(remembering.memo or {}) == 3
    order = [4, 1, 3, 0, 1]
    assert torch.allclose(remembering(images[order])[0], computing(images[order])[0], atol=1e-6)
    assert torch.equal(computing(images)[0], patch_map(encoder.tokens(images), 4))
    assert len(remembering.memo or {}) == 5
    assert copy.deepcopy(remembering) is remembering


def test_masks_and_images_match(data: Path, make_model: Callable[[int], Path], tasks: dict[str, Task]) -> None:
    with quiet():
        datasets = open_datasets(tasks["consep"], tiny(make_model(0)), data / "consep", SIZE)
    images, masks = datasets["train"].__getitems__([0, 7])
    assert images.shape == (2, 3, SIZE, SIZE)
    assert masks.shape == (2, SIZE, SIZE)
    assert masks.dtype == torch.int64
    assert set(masks.unique().tolist()) <= {0, 1, 2, 3, 4}
    # Brightness is 30 × CoNSeP's type: dark pixels are background, bright ones spindle-shaped.
    levels = (images.mean(1) * 0.5 + 0.5) * 255 / 30
    assert levels[masks == 0].median() < 0.5
    assert levels[masks == 4].median() > 4.5
