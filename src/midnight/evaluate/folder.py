"""A tile task of one's own: a folder with one sub-folder of images per class."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from eva.vision.data.datasets import vision
from eva.vision.utils import io
from torch import Tensor

EXTENSIONS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}


class FolderImages(vision.VisionDataset):
    """Images of a folder's sub-folders; classes in alphabetical order, images in the order of their names."""

    def __init__(self, root: str, transforms: Callable[..., Any] | None = None) -> None:
        """Remember the folder; `configure` reads it.

        Args:
            root: folder with a sub-folder per class.
            transforms: of (image, target), as for eva's data sets.
        """
        super().__init__(transforms=transforms)
        self.root = Path(root)
        self.samples: list[tuple[Path, int]] = []

    @property
    def classes(self) -> list[str]:
        """Names of the sub-folders that hold images."""
        folders = sorted(path for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))
        return [folder.name for folder in folders if any(_images(folder))]

    def configure(self) -> None:
        """List the images."""
        self.samples = [
            (path, number) for number, name in enumerate(self.classes) for path in _images(self.root / name)
        ]

    def validate(self) -> None:
        """Check that there are two classes or more.

        Raises:
            ValueError: there aren't.
        """
        if len(self.classes) < 2:
            raise ValueError(f"needs a sub-folder of images for each of two classes or more, found {self.classes}")

    def filename(self, index: int) -> str:
        """Class and file name."""
        return self.samples[index][0].relative_to(self.root).as_posix()

    def load_data(self, index: int) -> Any:
        """The image: tv_tensors.Image uint8 [3, h, w]."""
        return io.read_image_as_tensor(str(self.samples[index][0]))

    def load_target(self, index: int) -> Tensor:
        """The class number: int64 []."""
        return torch.tensor(self.samples[index][1], dtype=torch.long)

    def __len__(self) -> int:
        return len(self.samples)


def _images(folder: Path) -> list[Path]:
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in visible if path.suffix.lower() in EXTENSIONS and path.is_file())
