"""Which cells are computed in this process, and which side by side in others."""

import dataclasses
import functools
from collections.abc import Callable

from midnight.evaluate.cells import Scoring
from midnight.evaluate.encoder import pick_device
from midnight.evaluate.entries import Task
from midnight.evaluate.records import Record
from midnight.evaluate.workers import Call


def group_poolings(task: Task, poolings: list[str]) -> list[tuple[str, ...]]:
    """Poolings that share one computation: all of them for segmentation, which doesn't pool."""
    return [tuple(poolings)] if task.kind == "segmentation" else [(pooling,) for pooling in poolings]


def share_cells(
    score: Callable[[Scoring, Task, tuple[str, ...]], list[Record]],
    job: Scoring,
    cells: list[tuple[Task, tuple[str, ...]]],
    threads: int,
) -> tuple[list[Call], list[Call], int]:
    """Cells for this process, cells for forked ones and how many of these, for `run_calls`.

    Heads and probes are fitted on the CPU by one thread each, since they are too small for more: with several threads
    in forked processes. What needs the encoder or a GPU stays in this process, with the threads that are left.
    """
    gpu = pick_device(job.evaluation.accelerator).type == "cuda"
    stays = {"segmentation", "slide"} if gpu else {"segmentation"}
    small = dataclasses.replace(job, evaluation=dataclasses.replace(job.evaluation, accelerator="cpu"))
    here: list[Call] = []
    forked: list[Call] = []
    for task, poolings in cells:
        calls = here if threads == 1 or task.kind in stays else forked
        owner = job if task.kind in stays else small
        calls.append(functools.partial(score, owner, task, poolings))
    return here, forked, min(len(forked), threads - bool(here))
