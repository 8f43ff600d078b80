"""Perturbed images: what a variant of a task shows to heads that were fitted without them.

Both changes are made to an image's own pixels, before eva's preprocessing. The stain shift is that of the training
augmentation (`midnight.tiles.augment.hed`), drawn from the image's pixels alone: the same in every run, for every
model and input size, in whatever order images are read. The magnification is changed by showing the image's centre
only, so an image loses its border and gains no detail; there is no lower magnification, since nothing is known beyond
the border.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from midnight.errors import MidnightError
from midnight.evaluate.entries import Perturbation, Task
from midnight.evaluate.store import Embeddings


class Perturbed:
    """Preprocessing with a perturbation before it; takes and gives what eva's data sets give and take."""

    def __init__(self, perturbation: Perturbation, preprocessing: Callable[..., Any]) -> None:
        self.perturbation, self.preprocessing = perturbation, preprocessing

    def __call__(self, image: Tensor, *rest: Any) -> Any:
        """What the preprocessing makes of the perturbed image (uint8 [3, h, w]) and of whatever comes with it."""
        from torchvision import tv_tensors

        return self.preprocessing(tv_tensors.Image(perturb(image, self.perturbation)), *rest)


def perturb(image: Tensor, perturbation: Perturbation) -> Tensor:
    """The perturbed image: uint8 [3, h', w'], smaller where it is magnified.

    Args:
        image: RGB uint8 [3, h, w].
        perturbation: strength of the stain shift, magnification.
    """
    shifted = shift_stain(image.as_subclass(Tensor), perturbation.hed_sigma)
    height, width = (max(1, round(side / perturbation.magnification)) for side in image.shape[1:])
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    return shifted[:, top : top + height, left : left + width]


def shift_stain(image: Tensor, sigma: float) -> Tensor:
    """The image (RGB uint8 [3, h, w]) with shifted stains; a function of its pixels and `sigma` alone."""
    from midnight.tiles.augment.hed import augment

    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    seed = int.from_bytes(hashlib.blake2b(pixels.data, digest_size=8).digest())
    return torch.from_numpy(augment(pixels, np.random.default_rng(seed), sigma)).permute(2, 0, 1)


def join_base(task: Task, perturbed: Embeddings, base: Embeddings) -> Embeddings:
    """What a variant is fitted and scored on: `train` and `val` of its base task, and the perturbed images as `test`.

    Args:
        task: the variant.
        perturbed: its own embeddings.
        base: those of the task that it is a variant of.

    Raises:
        MidnightError: they are of different models, sizes or images.
    """
    (role,) = task.dataset.splits
    names = base.samples["name"].to_numpy()[base.rows(role)]
    same = all(perturbed.index[key] == base.index[key] for key in ("model_hash", "size"))
    if not same or names.tolist() != perturbed.samples["name"].tolist():
        raise MidnightError(f"task {task.name}: not of the images that {task.variant_of} has; run the embed rule again")
    rows = np.concatenate([base.rows("train"), base.rows("val")])
    samples = pd.concat([base.samples.iloc[rows], perturbed.samples.assign(split="test")], ignore_index=True)
    index = perturbed.index | {"count": len(samples)}
    features = np.empty((len(samples), base.features.shape[1]), np.result_type(base.features, perturbed.features))
    np.take(base.features, rows, axis=0, out=features[: len(rows)], mode="clip")  # any other mode makes a copy first
    features[len(rows) :] = perturbed.features
    return Embeddings(features, samples, index)


def leave_generator_alone(data: Any) -> None:
    """Let eva's DataModule test without drawing from torch's generator: the next run starts as if it had not tested."""
    loader = data.dataloaders.test

    def load(*arguments: Any, **options: Any) -> Any:
        opened = loader(*arguments, **options)
        opened.generator = torch.Generator()
        return opened

    data.dataloaders = dataclasses.replace(data.dataloaders, test=load)
