"""Features of a slide by ours, and in TRIDENT's way: both write the same HDF5 file of the same tiles."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import openslide
import timm
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from midnight.config import Features, Tissue
from midnight.evaluate.encoder import Encoder, Tokens, pick_precision
from midnight.mil.bags import bag_path
from midnight.mil.cohort import embed_slides
from midnight.mil.job import FeatureJob, local_items
from midnight.mil.ledger import NAME

HALF = (0.5, 0.5, 0.5)
# How far a level may be from the wanted downsample for TRIDENT to take it.
TOLERANCE = 0.1
LEAST_CONTRAST = 1e-6


@dataclass(frozen=True)
class Case:
    """A model with random weights, and how many tiles of `size` px it gets at once."""

    name: str
    arch: str
    batch: int
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    size: int = 224


def build(case: Case, device: torch.device) -> Encoder:
    """The model on its device."""
    torch.manual_seed(0)
    model = timm.create_model(case.arch, num_classes=0, img_size=case.size, dynamic_img_size=True, **case.kwargs)
    dim = int(model.embed_dim)
    return Encoder(Tokens(model).to(device), HALF, HALF, 0, dim, "random")


def ours(slide: Path, encoder: Encoder, case: Case, mpp: float, workers: int, output: Path) -> Path:
    """What `midnight embed` does once the model is loaded: tissue, tiles, features, the file."""
    features, tissue = Features(mpp=mpp, size=case.size), Tissue()
    precision = pick_precision(encoder.device, "tile")
    job = FeatureJob(encoder, case.name, precision, features, tissue, case.batch, workers)
    items, refused = local_items(str(slide), tissue)
    embed_slides(items, refused, job, output, output / NAME)
    return bag_path(output, items[0].slide_id)


class OpenSlideTiles(torch.utils.data.Dataset):
    """Tiles one by one from OpenSlide, opened once in each process, as TRIDENT's data set reads them."""

    def __init__(self, path: Path, coords: np.ndarray, size: int, downsample: float) -> None:
        self._path, self._coords, self._size = path, coords, size
        self._slide: openslide.OpenSlide | None = None
        self._process = 0
        with openslide.OpenSlide(path) as slide:
            self._level = best_level(slide.level_downsamples, downsample)
            self._side = round(round(size * downsample) / int(slide.level_downsamples[self._level]))
        self._transform = Compose([Resize(size), CenterCrop(size), ToTensor(), Normalize(HALF, HALF)])

    def __len__(self) -> int:
        return len(self._coords)

    def __getitem__(self, index: int) -> torch.Tensor:
        if self._slide is None or self._process != os.getpid():
            self._slide, self._process = openslide.OpenSlide(self._path), os.getpid()
        x, y = (int(value) for value in self._coords[index])
        tile: Image.Image = self._slide.read_region((x, y), self._level, (self._side, self._side)).convert("RGB")
        tensor: torch.Tensor = self._transform(tile.resize((self._size, self._size)))
        return tensor

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_slide": None}


def best_level(downsamples: tuple[float, ...], wanted: float) -> int:
    """The level of about the wanted downsample, else the coarsest that is finer."""
    near = [level for level, found in enumerate(downsamples) if abs(found - wanted) <= TOLERANCE]
    return near[0] if near else max((level for level, found in enumerate(downsamples) if found <= wanted), default=0)


@torch.inference_mode()
def peer(
    slide: Path, coords: np.ndarray, encoder: Encoder, case: Case, downsample: float, workers: int, output: Path
) -> Path:
    """One pass of a DataLoader over the given tiles, features gathered, the file written with a chunk per row."""
    tiles = OpenSlideTiles(slide, coords, case.size, downsample)
    context = "fork" if workers else None
    loader = torch.utils.data.DataLoader(tiles, case.batch, num_workers=workers, multiprocessing_context=context)
    device = encoder.device
    half = torch.autocast(device.type, torch.bfloat16, enabled=pick_precision(device, "tile") == "bfloat16")
    found = []
    for images in loader:
        with half:
            tokens = encoder.tokens(images.to(device))
        found.append(tokens[:, 0].float().cpu().numpy())
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{slide.stem}.h5"
    features = np.concatenate(found)
    with h5py.File(path, "w") as file:
        for name, values in (("features", features), ("coords", coords)):
            file.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]), chunks=(1, *values.shape[1:]))
    return path


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features and coordinates of a file."""
    with h5py.File(path) as file:
        return file["features"][:].astype(np.float32), file["coords"][:]


def agreement(one: np.ndarray, two: np.ndarray) -> float:
    """The median correlation of a tile's features on both sides, less each side's mean over all tiles."""
    one, two = one - one.mean(0), two - two.mean(0)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return float(np.median((one * two).sum(1) / np.maximum(norms, LEAST_CONTRAST)))
