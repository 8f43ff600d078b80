"""A few worker processes with a progress bar."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import joblib
from tqdm import tqdm

from midnight.children import obey_parent_only

WORKERS = 2


def run_all(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], what: str, unit: str) -> list[Any]:
    """Call `function(*job)` for every job in fresh processes; results in the order of the jobs.

    Fresh interpreters (loky), since a fork of a process whose OpenCV has threads hangs, and multiprocessing's own
    spawn runs the calling script again.

    Args:
        function: importable by name.
        jobs: arguments of each call.
        what: the bar's title.
        unit: what the bar counts.
    """
    calls = (joblib.delayed(_single_threaded)(function, job, os.getpid()) for job in jobs)
    pool = joblib.Parallel(n_jobs=min(WORKERS, len(jobs)), backend="loky", return_as="generator")
    return list(tqdm(pool(calls), total=len(jobs), desc=what, unit=unit))


def _single_threaded(function: Callable[..., Any], job: tuple[Any, ...], parent: int) -> Any:
    if os.getpid() != parent:
        obey_parent_only(parent)
    cv2.setNumThreads(1)
    return function(*job)
