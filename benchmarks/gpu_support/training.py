"""The trainer itself on a GPU: simple textures, augmented on the device; checkpoints, stopping and going on."""

import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from midnight.config import Mlflow, Recipe, build

KINDS, POOL = 8, 512
"""Textures, and tiles of them."""


def recipe(steps: int, small: bool) -> Recipe:
    """ViT-S/14 at batch 64, or a tiny one."""
    kwargs = {"embed_dim": 96, "num_heads": 3, "depth": 3} if small else {}
    values = {
        "name": "gpu-run",
        "backbone": {"arch": "vit_small_patch14_dinov2", "drop_path": 0.1, "layer_scale": 1.0, "kwargs": kwargs},
        "heads": {"prototypes": 256 if small else 8192, "hidden": 512, "bottleneck": 128},
        "optimizer": {"base_lr": 2e-3, "warmup": 0.1},
        "training": {
            "iterations": steps,
            "gpus": 1,
            "batch_size": 4 if small else 64,
            "accumulation": 1,
            "checkpoint_every": steps // 2,
            "log_every": max(1, steps // 10),
            "probe_every": 0,
            "workers": 0,
            "augment": "device",
        },
    }
    return build(Recipe, values, "gpu-run")


def tiles() -> tuple[Tensor, Tensor]:
    """Tiles uint8 [POOL, 256, 256, 3] in stain-like colours, and each one's texture."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:256, :256] / 256
    made, kinds = [], rng.integers(KINDS, size=POOL)
    for kind in kinds:
        angle, frequency = kind * np.pi / KINDS, 6 + 5 * kind
        phase = frequency * 2 * np.pi * (rows * np.cos(angle) + columns * np.sin(angle)) + rng.uniform(0, 6)
        wave = 0.5 + 0.5 * np.sin(phase)[..., None]
        colour = np.array([200, 120, 180]) * wave + np.array([120, 60, 150]) * (1 - wave)
        made.append(np.clip(colour + rng.normal(0, 12, (256, 256, 3)), 0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(made)), torch.from_numpy(kinds)


def loader(pool: Tensor, batch: int) -> Any:
    """Batches from a step on."""

    def batches(start: int) -> Iterator[Mapping[str, Tensor]]:
        for step in itertools.count(start):
            index = torch.arange(step * batch, (step + 1) * batch)
            chosen = pool[index % POOL]
            yield {"tiles": chosen.pin_memory() if torch.cuda.is_available() else chosen, "index": index}

    return batches


def run(folder: Path, small: bool) -> Iterator[dict[str, Any]]:
    """Train to the end; again, stopped half-way; how the losses compare, and how well textures are told apart."""
    if "openslide" not in sys.modules:
        try:
            __import__("openslide")
        except ImportError:  # no slide is read here
            sys.modules["openslide"] = mock.MagicMock(OpenSlideError=OSError, OpenSlideUnsupportedFormatError=OSError)
    from midnight.ssl.exports.model_folder import load_model
    from midnight.ssl.launch.job import Job
    from midnight.ssl.launch.signals import StoppedError
    from midnight.ssl.train import train

    steps = 8 if small else 100
    pool, kinds = tiles()
    wanted = recipe(steps, small)
    given: dict[str, Any] = {"cohorts": {}, "init_from": None, "mlflow": Mlflow(tracking_uri="off"), "data": "demo"}
    batch = wanted.training.batch_size

    def ending(start: int) -> Iterator[Mapping[str, Tensor]]:
        yield from itertools.islice(loader(pool, batch)(start), steps // 2 + 1 - start)
        raise StoppedError("half-way")

    for name, batches in {"whole": loader(pool, batch), "stopped": ending, "resumed": loader(pool, batch)}.items():
        output = folder / ("whole" if name == "whole" else "parts")
        start = time.perf_counter()
        try:
            train(Job(wanted, output=output, tracking_dir=folder, **given), batches)
        except StoppedError as error:
            yield {"run": name, "said": str(error)[-120:]}
            continue
        lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        row = {"run": name, "seconds": round(time.perf_counter() - start, 1), "steps": lines[-1]["step"]}
        row |= {"images_per_s": round(float(np.median([line["images_per_s"] for line in lines[1:]])), 1)}
        row |= {key: [round(line[key], 4) for line in (lines[0], lines[-1])] for key in ("loss", "ibot", "rank")}
        yield row
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("whole", "parts"):
        vit = load_model(folder / name)[0].to(device)
        yield {"run": name, "nearest_neighbour": _nearest(vit, pool.to(device), kinds.to(device))}


@torch.no_grad()
def _nearest(vit: torch.nn.Module, pool: Tensor, kinds: Tensor) -> float:
    """Share of tiles whose nearest other one is of their texture; 1 / KINDS by chance."""
    images = pool[:, 16:240, 16:240].permute(0, 3, 1, 2).float() / 127.5 - 1
    cls = torch.cat([torch.nn.functional.normalize(vit(part), dim=-1) for part in images.split(64)])
    similarity = (cls @ cls.T).fill_diagonal_(-2)
    return round(float((kinds[similarity.argmax(dim=1)] == kinds).float().mean()), 3)
