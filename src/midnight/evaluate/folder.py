"""A tile task of your own: labelled images of a folder or of a CSV as a data set of eva's kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from eva.vision.data.datasets import vision
from eva.vision.utils import io
from torch import Tensor

from midnight.evaluate.labelled import ALL, Labelled, Sample, read_labelled


class FolderImages(vision.VisionDataset):
    """Images of one split, by class and name; classes in alphabetical order, the same in each split."""

    def __init__(self, root: str, transforms: Callable[..., Any] | None = None, split: str = ALL) -> None:
        """Remember the folder; `configure` reads it.

        Args:
            root: folder or CSV, see midnight.evaluate.labelled.
            transforms: of (image, target), as for eva's data sets.
            split: "train", "val" or "test" where splits are given, else "all".
        """
        super().__init__(transforms=transforms)
        self.root = Path(root)
        self.split = split
        self.labelled = Labelled(())
        self.samples: list[Sample] = []
        self.numbers: dict[str, int] = {}

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return self.labelled.classes

    def configure(self) -> None:
        """List the images."""
        self.labelled = read_labelled(self.root)
        self.samples = [sample for sample in self.labelled.samples if sample.split == self.split]
        self.numbers = {name: number for number, name in enumerate(self.classes)}

    def validate(self) -> None:
        """Check the list.

        Raises:
            ValueError: fewer than two classes, or a split lacks one.
        """
        self.labelled.check()

    def filename(self, index: int) -> str:
        """Class and file name, or the path in the CSV."""
        return self.samples[index].name

    def load_data(self, index: int) -> Any:
        """The image: tv_tensors.Image uint8 [3, h, w]."""
        return io.read_image_as_tensor(str(self.samples[index].path))

    def load_target(self, index: int) -> Tensor:
        """The class number: int64 []."""
        return torch.tensor(self.numbers[self.samples[index].label], dtype=torch.long)

    def load_metadata(self, index: int) -> dict[str, Any] | None:
        """The group of the image, as eva names slides; None where it is unknown."""
        group = self.samples[index].group
        return {"wsi_id": group} if group else None

    def __len__(self) -> int:
        return len(self.samples)
