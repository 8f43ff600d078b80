"""What eva's YAML files name beside eva: equal random numbers for both sides, and what eva's own files get wrong."""

from typing import Any, ClassVar

import torch
from eva.vision.models.networks.decoders.segmentation import ConvDecoderWithImage
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn import Linear

from midnight.evaluate.session import seed_all


class Reseed(Callback):
    """The random numbers of the fits: from the seed on, and from fit to fit as if eva drew none between them.

    eva seeds when it starts, and builds an encoder given to its segmentation module anew, at random, for each run.
    """

    state: ClassVar[Tensor | None] = None  # eva copies its callbacks for each run

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_fit_start(self, *_: Any) -> None:
        """Seed, or go on."""
        if Reseed.state is None:
            seed_all(self.seed)
        else:
            torch.set_rng_state(Reseed.state)

    def teardown(self, *_: Any, stage: str) -> None:
        """After a fit, validation or test."""
        Reseed.state = None if stage == "predict" else torch.get_rng_state()


class SeededLinear(Linear):
    """torch's, its init seeded: eva builds it while it computes embeddings, once for all runs."""

    def __init__(self, in_features: int, out_features: int, seed: int) -> None:
        torch.manual_seed(seed)
        super().__init__(in_features, out_features)


class SeededDecoder(ConvDecoderWithImage):
    """eva's decoder, its init seeded: eva builds it while it reads the YAML file."""

    def __init__(self, in_features: int, num_classes: int, seed: int) -> None:
        torch.manual_seed(seed)
        super().__init__(in_features, num_classes)


def classes(logits: Tensor) -> Tensor:
    """Class numbers [B, H, W] from logits [B, C, H, W]; jsonargparse no longer takes the YAML's `torch.argmax`."""
    return logits.argmax(dim=1)
