"""Tiny data sets in eva's layouts, and registries that name them."""

from pathlib import Path

import h5py
import numpy as np
import scipy.io
from PIL import Image

from midnight.config import Evaluation
from midnight.evaluate import embed as embed_module
from midnight.evaluate.encoder import Encoder, load_encoder
from midnight.evaluate.entries import Model

SIZE = 28
EMBEDDED = ["shots", "folder", "hest"]
SPLITS = {"train": 48, "valid": 24, "test": 32}


def write_patch_camelyon(root: Path) -> None:
    """Patches that are brighter with tumour, but not always."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, n in SPLITS.items():
        labels = np.arange(n) % 2
        levels = 100 + 25 * labels + rng.integers(-30, 30, n)
        images = levels[:, None, None, None] + rng.integers(-40, 40, (n, 32, 32, 3))
        for key, values in (("x", images.astype(np.uint8)), ("y", labels.astype(np.uint8).reshape(-1, 1, 1, 1))):
            with h5py.File(root / f"camelyonpatch_level_2_split_{split}_{key}.h5", "w") as file:
                file[key] = values


def write_consep(root: Path) -> None:
    """27 and 14 fields of 250 px: eva's own counts; the class of a pixel is its brightness."""
    rng = np.random.default_rng(0)
    for split, n in (("Train", 27), ("Test", 14)):
        for folder in ("Images", "Labels"):
            (root / split / folder).mkdir(parents=True)
        for index in range(n):
            coarse = rng.integers(0, 8, (5, 5))
            types = np.kron(coarse, np.ones((50, 50), int)).astype(np.uint8)
            name = f"{split.lower()}_{index + 1}"
            image = np.repeat(types[..., None] * 30, 3, 2).astype(np.uint8)
            Image.fromarray(image).save(root / split / "Images" / f"{name}.png")
            scipy.io.savemat(root / split / "Labels" / f"{name}.mat", {"type_map": types})


def write_folder(root: Path, per_class: int = 6) -> None:
    rng = np.random.default_rng(0)
    for number, name in enumerate(("ADI", "LYM", "TUM")):
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            image = 50 + 70 * number + rng.integers(-30, 30, (40, 36, 3))
            Image.fromarray(image.astype(np.uint8)).save(root / name / f"{index}.png")


TASKS = """
presets:
  linear: &linear
    runs: 3
    max_steps: 24
    batch_size: 256
    lr: 0.01
    weight_decay: 0.05
    scheduler: {name: CosineAnnealingLR, args: {T_max: 24, eta_min: 0.0}}
    patience: 100
    validate_every: 8
    sanity_steps: 0
tasks:
  shots:
    kind: tile
    label: Ten shots
    column: pc10
    metric: BinaryBalancedAccuracy
    scored: test
    data: demo
    dataset:
      class_path: midnight.evaluate.relaxed.PatchCamelyon
      root: pcam
      splits: {train: train, val: val, test: test}
    protocols: {demo: {<<: *linear, shots: 4}, paper: {<<: *linear, shots: 4}}
  strict:
    kind: tile
    label: Exact counts
    column: pc
    metric: BinaryBalancedAccuracy
    scored: test
    dataset:
      class_path: eva.vision.data.datasets.PatchCamelyon
      root: pcam
      splits: {train: train, val: val, test: test}
    protocols: {demo: *linear}
  consep:
    kind: segmentation
    label: CoNSeP
    column: cnsp
    metric: MonaiDiceScore
    scored: val
    classes: 5
    data: demo
    dataset:
      class_path: eva.vision.data.datasets.CoNSeP
      root: consep
      splits: {train: train, val: val}
      args: {sampler: {class_path: eva.vision.data.wsi.patching.samplers.GridSampler}}
    protocols: {demo: {<<: *linear, runs: 2, max_steps: 4, batch_size: 16, validate_every: 1}}
  folder:
    kind: folder
    label: Folder
    column: folder
    metric: MulticlassAccuracy
    scored: val
    dataset: {class_path: midnight.evaluate.folder.FolderImages, root: fields}
    protocols: {demo: *linear}
  hest:
    kind: hest
    label: HEST
    column: hest
    metric: PearsonCorrelation
    scored: test
    dataset: {root: hest}
  slides:
    kind: slide
    label: Slides
    column: c16
    metric: BinaryBalancedAccuracy
    scored: test
    max_tiles: 5
    dataset: {class_path: eva.vision.data.datasets.Camelyon16, root: c16, splits: {train: a, val: b, test: c}}
    protocols:
      demo: {<<: *linear, runs: 2, max_steps: 40, batch_size: 4, validate_every: 1}
"""
MODELS = "models:\n  tiny: {source: init, run: demo, label: Tiny, sizes: [28], published: UNI}\n"


def tiny(folder: Path) -> Encoder:
    return load_encoder(Model("dir", "Tiny", [SIZE], path=str(folder), name="tiny"), None, SIZE)


def run_embed(model_dir: Path, evaluation: Evaluation, output: Path, names: list[str] | None = None) -> dict[str, Path]:
    folders = {name: output / "embeddings" / name for name in names or EMBEDDED}
    embed_module.embed("tiny", model_dir, SIZE, list(folders), evaluation, folders)
    return folders
