"""Embeddings of all tasks in one process: each image is decoded once, both poolings read the result."""

import functools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from midnight.config import Evaluation, plain
from midnight.errors import MidnightError
from midnight.evaluate.encoder import (
    STORED,
    Encoder,
    embed_images,
    load_encoder,
    model_hash,
    pick_device,
    pick_precision,
)
from midnight.evaluate.entries import Task
from midnight.evaluate.fingerprint import hash_task_data
from midnight.evaluate.hest_data import HestImages, read_folds
from midnight.evaluate.images import given_splits, load_batches, open_images, preprocessing_for, task_root
from midnight.evaluate.quiet import quiet
from midnight.evaluate.registry import data_settings, find_model, select_tasks
from midnight.evaluate.store import EmbeddingWriter, Row, is_current, link_embeddings, restore_index
from midnight.hashing import hash_value
from midnight.provenance import provenance, versions

LOG = logging.getLogger(__name__)
RELEVANT = ("torch", "timm", "kaiko-eva")
FORMAT = 2
"""Raised when a change of this package changes what is stored: embeddings of another format are computed again."""

Launched = tuple[Tensor, torch.cuda.Event | None, list[Row]]


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
        model: entry of `evaluation.weights` or of config/models.yaml.
        model_dir: exported folder of a model trained here, else None.
        size: input size, px.
        tasks: tile, slide, folder and hest tasks.
        evaluation: data root, batch size, decoding threads, accelerator.
        output_dirs: task: folder for features.npy ([N, 2D]), samples.parquet and, last, index.json.

    Raises:
        MidnightError: a model or data set is missing or wrong; what is done stays for the next attempt.
    """
    entry = find_model(model, evaluation.weights)
    chosen = {
        name: task
        for name, task in select_tasks(tasks, evaluation.protocol, folders=evaluation.folders).items()
        if name in tasks
    }
    device = pick_device(evaluation.accelerator)
    known_hash = model_hash(entry, model_dir)
    hash_once = functools.cache(hash_task_data)

    @functools.cache
    def load() -> Encoder:
        encoder = load_encoder(entry, model_dir, size, evaluation.weights_dir)
        encoder.tokens.to(device)
        return encoder

    for name, task in tqdm(chosen.items(), desc=f"embed {model} at {size} px", unit="task"):
        if task.kind == "segmentation":
            raise MidnightError(f"task {name}: segmentation runs online, it has no embeddings")
        root = task_root(task, evaluation.data_root)
        data_hash, precision = hash_once(task.kind, root), pick_precision(device, task.kind)
        key = embedding_key(known_hash or load().hash, data_hash, size, task, precision)
        if not reuse(key, output_dirs[name], output_dirs.values()):
            embed_task(load(), task, root, data_hash, size, evaluation, output_dirs[name], model)


def embedding_key(model_hash: str, data_hash: str, size: int, task: Task, precision: str) -> str:
    """Changes when, and only when, the embeddings of a task can change."""
    relevant = {name: versions().get(name) for name in RELEVANT}
    return hash_value([FORMAT, model_hash, data_hash, size, data_settings(task), precision, relevant])


def reuse(key: str, folder: Path, others: Iterable[Path]) -> bool:
    """Whether the embeddings need no computing: the folder has them, or another task with the same images does."""
    if is_current(folder, key):
        LOG.info("%s: up to date", folder.name)
        restore_index(folder)
        return True
    for other in others:
        if is_current(other, key):
            LOG.info("%s: the embeddings of %s", folder.name, other.name)
            link_embeddings(other, folder)
            return True
    return False


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
    """Write the embeddings of one task, going on where a killed job stopped; arguments as in `embed`."""
    with quiet():
        parts = list(open_parts(task, root, size, encoder))
    if task.kind != "slide":  # tiles of a slide share its name
        check_names(task, parts)
    precision = pick_precision(encoder.device, task.kind)
    dtype = str(STORED[precision]).removeprefix("torch.")
    counts = {part.split: len(part.images) for part in parts}
    index = {
        "key": embedding_key(encoder.hash, data_hash, size, task, precision),
        "model": model,
        "model_hash": encoder.hash,
        "data_hash": data_hash,
        "size": size,
        "count": sum(counts.values()),
        "dim": encoder.dim,
        "counts": counts,
        "precision": precision,
        "dtype": dtype,
        "provenance": provenance({"task": plain(task), "size": size}),
        **describe_folder(task, parts),
    }
    shape = (sum(counts.values()), 2 * encoder.dim)
    with (
        EmbeddingWriter(output, str(index["key"]), shape, dtype) as writer,
        tqdm(total=shape[0], initial=writer.done, desc=task.name, unit="img", leave=False) as bar,
    ):
        for features, rows in _compute(encoder, parts, writer.done, evaluation, precision):
            writer.append(features, rows)
            bar.update(len(rows))
        writer.finish(index)


def open_parts(task: Task, root: Path, size: int, encoder: Encoder) -> Iterator[Part]:
    """The data sets of a task: one per split, or per sample of a HEST task.

    Raises:
        MidnightError: see `open_images` and `read_folds`.
    """
    if task.kind == "hest":
        samples, _ = read_folds(root)
        for name, sample in samples.items():
            yield Part(name, HestImages(sample, preprocessing_for(task, name, size, encoder.mean, encoder.std)))
        return
    task = given_splits(task, root)
    for role in task.dataset.splits or {"all": "all"}:
        transforms = preprocessing_for(task, role, size, encoder.mean, encoder.std)
        yield Part(role, open_images(task, root, role, transforms))


def describe_folder(task: Task, parts: list[Part]) -> dict[str, Any]:
    """What the index of a folder task says besides: classes, by what images are grouped, images left out."""
    if task.kind != "folder":
        return {}
    labelled = parts[0].images.labelled
    return {"classes": labelled.classes, "grouped_by": labelled.grouped_by, "left_out": list(labelled.left_out)}


def check_names(task: Task, parts: list[Part]) -> None:
    """Check that no name is there twice in a split: it means that files of several folders were merged.

    Raises:
        MidnightError: names the image.
    """
    for part in parts:
        seen: set[str] = set()
        for name in map(part.images.filename, range(len(part.images))):
            if name in seen:
                raise MidnightError(f"task {task.name}: {name} is there twice; give every image its own name")
            seen.add(name)


def _compute(
    encoder: Encoder, parts: list[Part], done: int, evaluation: Evaluation, precision: str
) -> Iterator[tuple[np.ndarray, list[Row]]]:
    """Stored features and rows, batch by batch, of all images but the first `done`."""
    for part in parts:
        count = len(part.images)
        if done < count:
            yield from _embed_part(encoder, part, done, evaluation, precision)
        done = max(0, done - count)


def _embed_part(
    encoder: Encoder, part: Part, start: int, evaluation: Evaluation, precision: str
) -> Iterator[tuple[np.ndarray, list[Row]]]:
    for pooled, ready, rows in _one_behind(_launch(encoder, part, start, evaluation, precision)):
        if ready is not None:
            ready.synchronize()
        yield pooled.numpy(), rows


def _one_behind(batches: Iterator[Launched]) -> Iterator[Launched]:
    """The same items, each given when its successor is there: a GPU computes one batch while another is stored."""
    previous = next(batches, None)
    for batch in batches:
        if previous is not None:
            yield previous
        previous = batch
    if previous is not None:
        yield previous


def _launch(encoder: Encoder, part: Part, start: int, evaluation: Evaluation, precision: str) -> Iterator[Launched]:
    """Batches that are being computed: features, an event that tells when a GPU has delivered them, rows."""
    gpu = encoder.device.type == "cuda"
    for images, items in load_batches(part.images, evaluation.batch_size, evaluation.workers, start, pin=gpu):
        inputs = images.to(encoder.device, non_blocking=True)
        pooled = embed_images(encoder, inputs, precision).to("cpu", non_blocking=True)
        ready = torch.cuda.Event() if gpu else None
        if ready is not None:
            ready.record()
        yield pooled, ready, [_row(part, start + offset, *item) for offset, item in enumerate(items)]
        start += len(items)


def _row(part: Part, index: int, target: Any, metadata: dict[str, Any] | None) -> Row:
    name = part.images.filename(index)
    return part.split, name, float(target), str((metadata or {}).get("wsi_id", name))
