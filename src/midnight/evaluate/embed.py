"""Embeddings of all tasks in one process: each image is decoded once, both poolings read the result."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from midnight.config import Evaluation, plain
from midnight.errors import MidnightError
from midnight.evaluate.encoder import Encoder, load_encoder, model_hash, pick_device, pool
from midnight.evaluate.entries import Task
from midnight.evaluate.fingerprint import hash_data
from midnight.evaluate.hest_data import HestImages, read_folds
from midnight.evaluate.images import load_batches, open_images, preprocessing, task_root
from midnight.evaluate.quiet import quiet
from midnight.evaluate.registry import data_settings, find_model, select_tasks
from midnight.evaluate.store import COLUMNS, is_current, restore_index, write_embeddings
from midnight.hashing import hash_value
from midnight.provenance import provenance, versions

LOG = logging.getLogger(__name__)
RELEVANT = ("torch", "timm", "kaiko-eva")


@dataclass(frozen=True)
class Part:
    """The images of one split (hest: of one sample), a map-style data set."""

    split: str
    images: Any


def embed(
    model: str,
    model_dir: Path | None,
    size: int,
    tasks: list[str],
    evaluation: Evaluation,
    output_dirs: dict[str, Path],
) -> None:
    """Write [CLS ‖ mean of patch tokens] of every image of the tasks; what is up to date is left alone.

    Args:
        model: entry of config/models.yaml.
        model_dir: exported folder of a model trained here, else None.
        size: input size, px.
        tasks: tile, slide, folder and hest tasks.
        evaluation: data root, batch size, decoding threads, accelerator.
        output_dirs: task: folder for features.npy (float32 [N, 2D]), samples.parquet and, last, index.json.

    Raises:
        MidnightError: a model or data set is missing or wrong.
    """
    entry = find_model(model)
    chosen = select_tasks(tasks, evaluation.protocol)
    known_hash = model_hash(entry, model_dir)
    device = pick_device(evaluation.accelerator)
    encoder: Encoder | None = None
    for name, task in tqdm(chosen.items(), desc=f"embed {model} at {size} px", unit="task"):
        if task.kind == "segmentation":
            raise MidnightError(f"task {name}: segmentation runs online, it has no embeddings")
        root = task_root(task, evaluation.data_root)
        data_hash = hash_data(root)
        if known_hash and is_current(output_dirs[name], embedding_key(known_hash, data_hash, size, task)):
            LOG.info("%s: up to date", name)
            restore_index(output_dirs[name])
            continue
        if encoder is None:
            encoder = load_encoder(entry, model_dir, size)
            encoder.tokens.to(device)
        embed_task(encoder, task, root, data_hash, size, evaluation, output_dirs[name], model)


def embedding_key(model_hash: str, data_hash: str, size: int, task: Task) -> str:
    """Changes when, and only when, the embeddings of a task can change."""
    relevant = {name: versions().get(name) for name in RELEVANT}
    return hash_value([model_hash, data_hash, size, data_settings(task), relevant])


def embed_task(
    encoder: Encoder,
    task: Task,
    root: Path,
    data_hash: str,
    size: int,
    evaluation: Evaluation,
    output: Path,
    model: str,
) -> None:
    """Write the embeddings of one task; arguments as in `embed`."""
    key = embedding_key(encoder.hash, data_hash, size, task)
    if is_current(output, key):
        restore_index(output)
        return
    with quiet():
        transforms = preprocessing(size, encoder.mean, encoder.std)
        parts = list(open_parts(task, root, transforms))
    samples: list[tuple[Any, ...]] = []
    blocks = []
    with tqdm(total=sum(len(part.images) for part in parts), desc=task.name, unit="img", leave=False) as bar:
        for part in parts:
            for features, rows in _embed_part(encoder, part, evaluation):
                blocks.append(features)
                samples.extend(rows)
                bar.update(len(rows))
    table = pd.DataFrame(samples, columns=list(COLUMNS))
    _check_names(task, table)
    index = {
        "key": key,
        "model": model,
        "model_hash": encoder.hash,
        "data_hash": data_hash,
        "size": size,
        "count": len(table),
        "dim": encoder.dim,
        "counts": {str(split): int(count) for split, count in table["split"].value_counts(sort=False).items()},
        "dtype": "float32",
        "provenance": provenance({"task": plain(task), "size": size}),
    }
    write_embeddings(output, np.concatenate(blocks), table, index)


def open_parts(task: Task, root: Path, transforms: Callable[..., Any]) -> Iterator[Part]:
    """The data sets of a task: one per split, or per sample of a HEST task.

    Raises:
        MidnightError: see `open_images` and `read_folds`.
    """
    if task.kind == "hest":
        samples, _ = read_folds(root)
        for name, sample in samples.items():
            yield Part(name, HestImages(sample, transforms))
        return
    for role in task.dataset.splits or {"all": "all"}:
        yield Part(role, open_images(task, root, role, transforms))


def _embed_part(
    encoder: Encoder, part: Part, evaluation: Evaluation
) -> Iterator[tuple[np.ndarray, list[tuple[Any, ...]]]]:
    device = next(encoder.tokens.parameters()).device
    done = 0
    for images, items in load_batches(part.images, evaluation.batch_size, evaluation.workers):
        with torch.inference_mode():
            pooled = pool(encoder.tokens(images.to(device)), encoder.registers)
        rows = []
        for offset, (target, metadata) in enumerate(items):
            name = part.images.filename(done + offset)
            rows.append((part.split, name, float(target), str((metadata or {}).get("wsi_id", name))))
        done += len(items)
        yield pooled.float().cpu().numpy(), rows


def _check_names(task: Task, table: pd.DataFrame) -> None:
    """Tiles of a slide task share the slide's name; everywhere else a double name means that files were merged."""
    double = table[table.duplicated(["split", "name"])]
    if task.kind != "slide" and len(double):
        raise MidnightError(f"task {task.name}: {double['name'].iloc[0]} is there twice; give every image its own name")
