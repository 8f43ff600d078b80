"""Images of a task, read by eva's data set classes with eva's preprocessing."""

import contextlib
import dataclasses
import importlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from midnight.errors import ConfigError, MidnightError
from midnight.evaluate.entries import Task
from midnight.evaluate.faults import check_jpegs, check_slides, explain, with_file
from midnight.evaluate.labelled import ALL, read_labelled
from midnight.evaluate.workers import torch_threads
from midnight.pools import thread_pool

LOG = logging.getLogger(__name__)
TRUSTED = ("eva.", "midnight.", "torchvision.")
CHUNK_CACHE = 64 * 2**20


def task_root(task: Task, data_root: str | Path) -> Path:
    """The task's folder of data, or its CSV.

    Raises:
        MidnightError: it isn't there; says where the data come from and under which licence.
    """
    root = Path(data_root) / task.dataset.root
    if root.is_dir() or (task.kind == "folder" and root.is_file()):
        return root
    if task.is_own:
        raise MidnightError(f"task {task.name}: nothing at {root}; correct evaluation.folders.{task.name}")
    licence = f" (licence: {task.licence})" if task.licence else ""
    source = f"; get it from {task.source}{licence} and put it there" if task.source else ""
    raise MidnightError(f"task {task.name}: no data at {root} (evaluation.data_root is {data_root}){source}")


def build_object(value: Any) -> Any:
    """`value`, with each mapping that has a `class_path` replaced by an object of that class.

    Raises:
        ConfigError: the class is of no trusted package, or can't be imported or built.
    """
    if isinstance(value, list):
        return [build_object(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "class_path" not in value:
        return {name: build_object(item) for name, item in value.items()}
    return find_class(value["class_path"])(**build_object(value.get("init_args", {})))


def find_class(class_path: str) -> Callable[..., Any]:
    """The class with this dotted name, from eva, torchvision or this package.

    Raises:
        ConfigError: another package, or no such class.
    """
    module, _, name = class_path.rpartition(".")
    if not class_path.startswith(TRUSTED):
        raise ConfigError(f"class_path: {class_path!r} is not of {', '.join(TRUSTED)}")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"class_path: can't import {class_path!r}: {error}") from error


def open_images(task: Task, root: Path, role: str, transforms: Callable[..., Any] | None) -> Any:
    """eva's data set of one role ("train", "val", "test"), configured and validated by eva itself.

    Raises:
        MidnightError: the data on disk are not what eva expects; says what and where.
    """
    dataset = task.dataset
    given = {name: str(root) if value == "{root}" else value for name, value in dataset.args.items()}
    arguments = build_object(given) | {dataset.transforms_key: transforms}
    if dataset.splits:
        arguments["split"] = dataset.splits[role]
    build = find_class(dataset.class_path)
    try:
        images = build(root=str(root), **arguments)
        images.prepare_data()
        images.setup()
        names = [images.filename(index) for index in range(len(images))]
        if dataset.tables:  # a missing label shows before the first image is read
            for index in range(len(names)):
                images.load_target(index)
        hold_open(images)
    except AssertionError:  # torch's, of a list of no slides
        names = []
    except MemoryError:
        raise
    except Exception as error:  # eva's classes and their readers raise all sorts
        where = f"{root}" + (f" (split {dataset.splits[role]})" if dataset.splits else "")
        why = f"{where}: {explain(error, root, dataset.tables)}; see `midnight tasks status`"
        raise MidnightError(f"task {task.name}: wrong data in {why}") from error
    if not names:
        raise MidnightError(f"task {task.name}: no images of split {role!r} in {root}")
    check_jpegs(root if root.is_dir() else root.parent, names)
    if task.kind == "slide":
        check_slides(root, images)
    return images


def given_splits(task: Task, root: Path) -> Task:
    """A folder task with the splits that its folder or CSV gives; any other task as it is.

    Raises:
        MidnightError: the folder or CSV is wrong; says what.
    """
    if task.kind != "folder":
        return task
    try:
        found = read_labelled(root)
    except ValueError as error:
        raise MidnightError(f"task {task.name}: wrong data in {root}: {error}; see `midnight tasks status`") from error
    for line in found.left_out:
        LOG.warning("task %s: %s: left out: %s", task.name, root, line)
    splits = {split: split for split in found.splits if split != ALL}
    return dataclasses.replace(task, dataset=dataclasses.replace(task.dataset, splits=splits))


def hold_open(images: Any) -> None:
    """Keep an HDF5 file of images open as long as the data set lives.

    eva opens it anew for each image (PatchCamelyon), and HDF5's cache of decompressed chunks, each of which holds parts
    of many images, would go each time. While another handle is open, both share one cache.
    """
    if find_file := getattr(images, "_h5_file", None):
        import h5py

        path = find_file("x")
        images.held = h5py.File(path, rdcc_nbytes=CHUNK_CACHE, rdcc_nslots=100_003)["x"]


def preprocessing(size: int, mean: Sequence[float], std: Sequence[float]) -> Callable[..., Any]:
    """eva's ResizeAndCrop: shorter side to `size` px, centre crop, 0–1, normalised; float32 [3, size, size]."""
    from eva.vision.data.transforms.common import ResizeAndCrop

    return ResizeAndCrop(size=size, mean=list(mean), std=list(std))


def preprocessing_for(
    task: Task, role: str, size: int, mean: Sequence[float], std: Sequence[float]
) -> Callable[..., Any]:
    """The preprocessing of one role of a task; a variant's has its perturbation before it."""
    plain = preprocessing(size, mean, std)
    if task.perturb is None:
        return plain
    from midnight.evaluate.perturb import Perturbed

    return Perturbed(task.perturb, plain)


def load_batches(
    images: Any, batch_size: int, workers: int, start: int = 0, pin: bool = False
) -> Iterator[tuple[Tensor, list[Any]]]:
    """The items of a data set in order: images float32 [B, 3, S, S] and the items' (target, metadata).

    Args:
        images: a map-style data set of (image, target, metadata).
        batch_size: B, the last batch may be smaller.
        workers: decoding threads; one batch ahead. 0: in the caller's thread.
        start: first item.
        pin: give images in pinned memory, which a GPU can fetch by itself.

    Raises:
        MidnightError: an image can't be read; names it.
    """
    starts = range(start, len(images), batch_size)
    spans = [range(first, min(first + batch_size, len(images))) for first in starts]
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(thread_pool(workers)) if workers else None
        waiting: deque[list[Future[Any]]] = deque()
        for number, span in enumerate(spans):
            if pool is None:
                with torch_threads(1):  # for an image's few pixels, several would mostly wait for each other
                    items = [read_item(images, index) for index in span]
                yield _collate(items, pin)
                continue
            while len(waiting) < 2 and number + len(waiting) < len(spans):
                ahead = spans[number + len(waiting)]
                waiting.append([pool.submit(read_item, images, index) for index in ahead])
            yield _collate([future.result() for future in waiting.popleft()], pin)


def read_item(images: Any, index: int) -> Any:
    """One item of a data set.

    Raises:
        MidnightError: it can't be read; names it.
    """
    try:
        return images[index]
    except MemoryError:
        raise
    except Exception as error:  # decoders raise all sorts, openslide's and zlib's own among them
        name = images.filename(index)
        raise MidnightError(f"{name}: can't be read: {with_file(error)}; get the file again") from error


def _collate(items: list[Any], pin: bool) -> tuple[Tensor, list[Any]]:
    images = torch.empty(len(items), *items[0][0].shape, dtype=items[0][0].dtype, pin_memory=pin)
    torch.stack([item[0].as_subclass(Tensor) for item in items], out=images)
    return images, [tuple(item[1:]) for item in items]
