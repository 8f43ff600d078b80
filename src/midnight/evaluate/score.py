"""Scores of one model at one size: every cell of tasks × poolings, computed once per change of what it depends on."""

import dataclasses
import functools
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from midnight.config import Evaluation, choose, plain
from midnight.config.pipeline import is_generated
from midnight.errors import ConfigError
from midnight.evaluate.cells import Cell, Scoring, default_cache, describe_cell, find_cached, read_stored
from midnight.evaluate.division import describe, scored_split
from midnight.evaluate.entries import Task
from midnight.evaluate.hest import score_folds
from midnight.evaluate.images import task_root
from midnight.evaluate.records import Record, summarise, write_record
from midnight.evaluate.registry import find_model, select_tasks
from midnight.evaluate.scheduling import group_poolings, share_cells
from midnight.evaluate.store import Embeddings
from midnight.evaluate.workers import run_calls, torch_threads
from midnight.hashing import hash_value
from midnight.provenance import processor_versions, provenance, versions


def score_tasks(
    model: str,
    model_dir: Path | None,
    size: int,
    tasks: list[str],
    poolings: list[str],
    evaluation: Evaluation,
    embeddings: dict[str, Path],
    outputs: dict[tuple[str, str], Path],
    data: str,
    seed: int,
    cache_dir: Path | None = None,
    threads: int = 1,
) -> None:
    """Write one score record per (pooling, task).

    Args:
        model: entry of `evaluation.weights` or of config/models.yaml.
        model_dir: exported folder of a model trained here, else None.
        size: input size, px.
        tasks: entries of config/tasks.yaml.
        poolings: "cls", "cls_mean".
        evaluation: protocol, data root, accelerator.
        embeddings: task: folder that `embed` wrote (no segmentation tasks).
        outputs: (pooling, task): the record's path.
        data: "real" or "demo", goes into the records.
        seed: of heads, batches, drawn tiles and halves.
        cache_dir: finished cells; by default `cache/scores` beside `scores`.
        threads: of the CPU; with two or more, cells are computed side by side. Scores are the same, but for decoders
            on the CPU, where another number of threads rounds otherwise.

    Raises:
        MidnightError: data, embeddings or model are missing or wrong, or a score is not a finite number.
    """
    chosen = {
        name: task
        for name, task in select_tasks(tasks, evaluation.protocol, folders=evaluation.folders).items()
        if name in tasks
    }
    stray = [name for name, task in chosen.items() if is_generated(task.data) and not is_generated(data)]
    if stray:
        raise ConfigError(f"evaluation.tasks: {stray[0]} is generated data; set `data: demo` in the configuration")
    job = Scoring(find_model(model, evaluation.weights), model_dir, size, evaluation, data, seed)
    cache = cache_dir or default_cache(next(iter(outputs.values())))
    cells = [(task, group) for task in chosen.values() for group in group_poolings(task, poolings)]
    score = functools.partial(score_cell, embeddings=embeddings, cache=cache)
    with tqdm(total=len(cells), desc=f"score {model} at {size} px", unit="cell") as bar:
        here, forked, processes = share_cells(score, job, cells, threads)
        if processes:
            import eva.core.interface  # noqa: F401 (once, before the forks, instead of in each of them)
        with torch_threads(max(1, threads - processes)):
            for record in chain.from_iterable(run_calls(here, forked, processes, bar.update)):
                write_record(outputs[record.pooling, record.task], record)


def score_cell(
    job: Scoring, task: Task, poolings: tuple[str, ...], embeddings: dict[str, Path], cache: Path
) -> list[Record]:
    """Records of one task, one per pooling, from the cache where nothing that matters has changed.

    Raises:
        MidnightError: see `score_tasks`.
    """
    root = task_root(task, job.evaluation.data_root)
    stored, base = read_stored(task, embeddings) if task.kind != "segmentation" else (None, None)
    cell = describe_cell(job, task, poolings, root, stored)
    record = find_cached(cache / f"{cell.key}.json")
    if record is None:
        if stored is not None and base is not None:
            from midnight.evaluate.perturb import join_base

            stored = join_base(task, stored, base)
        record = compute(job, cell, root, stored)
        write_record(cache / f"{cell.key}.json", record)
    # What a person may rename without a change of the number.
    shown: dict[str, Any] = {"model": job.model.name, "label": job.model.label, "published": job.model.published}
    return [dataclasses.replace(record, pooling=pooling, column=task.column, **shown) for pooling in poolings]


def compute(job: Scoring, cell: Cell, root: Path, stored: Embeddings | None) -> Record:
    """Fit and score one cell."""
    started = time.perf_counter()
    values, extra = run_task(job, cell, root, stored)
    task = cell.task
    configuration = {"task": plain(task), "size": job.size, "seed": job.seed, "poolings": list(cell.poolings)}
    summary: dict[str, Any] = summarise(values, folds=task.kind == "hest")
    return Record(
        model=job.model.name,
        label=job.model.label,
        size=job.size,
        pooling=cell.poolings[0],
        task=task.name,
        column=task.column,
        metric=task.metric,
        values=values,
        protocol=task.protocol,
        data=job.data,
        versions=versions() | processor_versions(),
        config_hash=hash_value(configuration),
        data_hash=cell.data_hash,
        model_hash=cell.model_hash,
        seconds=round(time.perf_counter() - started, 3),
        provenance=provenance(configuration),
        kind=task.kind,
        split=scored_split(task, stored) if stored is not None else task.scored,
        seed=job.seed,
        extra=extra,
        **summary,
    )


Scored = tuple[list[float], dict[str, Any]]
"""Values per run or fold, and what else the record should hold."""


def run_task(job: Scoring, cell: Cell, root: Path, stored: Embeddings | None) -> Scored:
    """Fit and score by the code for the task's kind; `stored` is None where there are no embeddings."""
    return choose(cell.task.kind, RUNNERS, f"tasks.{cell.task.name}.kind")(job, cell, root, stored)


def _segmentation(job: Scoring, cell: Cell, root: Path, _: Embeddings | None) -> Scored:
    from midnight.evaluate.segment import fit_segmentation

    values = fit_segmentation(cell.task, job.load(), root, job.size, job.evaluation.accelerator, job.seed)
    return values, {"pooling_independent": True}


def _hest(job: Scoring, cell: Cell, root: Path, stored: Embeddings | None) -> Scored:
    assert stored is not None  # noqa: S101 (only segmentation has none)
    return score_folds(root, stored, cell.poolings[0])


def _heads(job: Scoring, cell: Cell, root: Path, stored: Embeddings | None) -> Scored:
    from midnight.evaluate.heads import fit_heads

    assert stored is not None  # noqa: S101 (only segmentation has none)
    task = cell.task
    extra: dict[str, Any] = {}
    if task.perturb:
        extra = {"variant_of": task.variant_of, "perturbation": task.perturb.text}
    elif task.kind == "folder":
        said = {"division": describe(stored), "left_out": stored.index.get("left_out", [])}
        extra = {name: value for name, value in said.items() if value}
    return fit_heads(task, stored, cell.poolings[0], job.evaluation.accelerator, job.seed), extra


RUNNERS: dict[str, Callable[[Scoring, Cell, Path, Embeddings | None], Scored]] = {
    "tile": _heads,
    "slide": _heads,
    "folder": _heads,
    "segmentation": _segmentation,
    "hest": _hest,
}
