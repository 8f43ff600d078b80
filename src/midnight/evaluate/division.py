"""How a folder task's images are divided: by its own splits, or else into random halves, each group on one side."""

from collections.abc import Sequence

import numpy as np

from midnight.errors import MidnightError
from midnight.evaluate.entries import Task
from midnight.evaluate.store import Embeddings

ATTEMPTS = 100
BY_IMAGE = (
    "random halves of the images; no column, sub-folder or file name says which are of one slide or patient, so tiles "
    "of one slide may be on both sides, which makes scores too high"
)
"""What a record that says nothing else means."""


def is_given(embeddings: Embeddings) -> bool:
    """Whether the images came with splits."""
    return bool((embeddings.samples["split"] == "train").any())


def scored_split(task: Task, embeddings: Embeddings) -> str:
    """The split whose metric is reported: of given ones `test` before `val`; of halves that of the task."""
    test = task.kind == "folder" and is_given(embeddings) and bool(len(embeddings.rows("test")))
    return "test" if test else task.scored


def divide(task: Task, embeddings: Embeddings, seed: int) -> dict[str, np.ndarray]:
    """Row numbers by role: the given splits, the same for each seed, or "train" and "val", two random halves.

    Raises:
        MidnightError: there are fewer than two classes with two images or more, or no such halves of groups.
    """
    targets = embeddings.samples["target"].to_numpy().astype(int)
    if len(counts := np.bincount(targets)) < 2 or counts.min() < 2:
        raise MidnightError(f"task {task.name}: needs two classes or more with two images or more each, has {counts}")
    if is_given(embeddings):
        rows = {role: embeddings.rows(role) for role in ("train", "val", "test")}
        return {role: chosen for role, chosen in rows.items() if len(chosen)}
    if not embeddings.index.get("grouped_by"):
        return split_halves(targets, seed)
    groups = embeddings.samples["group"].to_numpy()
    halves = split_groups(targets, groups, seed)
    if halves is None:
        classes = embeddings.index["classes"]
        alone = [name for number, name in enumerate(classes) if len(set(groups[targets == number])) < 2]
        why = f"all images of {alone[0]!r} are of one group" if alone else "each half would lack a class"
        raise MidnightError(f"task {task.name}: no halves of groups: {why}; add groups, or give a split")
    return halves


def split_halves(targets: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Row numbers of a random half of each class ("train", rounded down) and of the rest ("val"), both sorted."""
    rng = np.random.default_rng(seed)
    train = []
    for value in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == value))
        train.append(members[: len(members) // 2])
    chosen = np.sort(np.concatenate(train))
    return {"train": chosen, "val": np.setdiff1d(np.arange(len(targets)), chosen)}


def split_groups(targets: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, np.ndarray] | None:
    """Row numbers of two halves, no group on both sides, every class on each; None where none were found.

    In random order each group goes where its classes are rarer so far: both sides get about half of each class.

    Args:
        targets: int [n], class of each image.
        groups: [n], group of each image.
        seed: of the order, and of the side where both are alike.
    """
    rng = np.random.default_rng(seed)
    names, number = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), targets.max() + 1))
    np.add.at(counts, (number, targets), 1)
    shares = counts / counts.sum(0).clip(min=1)
    for _ in range(ATTEMPTS):
        held = np.zeros((2, shares.shape[1]))
        side = np.zeros(len(names), int)
        for group in rng.permutation(len(names)):
            costs = held @ counts[group]
            side[group] = rng.integers(2) if costs[0] == costs[1] else int(costs.argmin())
            held[side[group]] += shares[group]
        if held.all():
            return {role: np.flatnonzero(side[number] == place) for place, role in enumerate(("train", "val"))}
    return None


def describe(embeddings: Embeddings) -> str:
    """How the images are divided, for people; "" for random halves of images, see BY_IMAGE."""
    grouped_by = str(embeddings.index.get("grouped_by", ""))
    if is_given(embeddings):
        counts = embeddings.samples["split"].value_counts()
        sizes = ", ".join(f"{role} {counts[role]:,}" for role in ("train", "val", "test") if role in counts)
        shared = _shared_groups(embeddings) if grouped_by else []
        leak = f"; {len(shared):,} groups by {grouped_by} are in several splits: {', '.join(shared[:4])}"
        return f"the given split ({sizes} images); ± is that of repeated fits alone" + (leak if shared else "")
    if grouped_by:
        return f"random halves of {embeddings.samples['group'].nunique():,} groups by {grouped_by}"
    return ""


def _shared_groups(embeddings: Embeddings) -> Sequence[str]:
    splits = embeddings.samples.groupby("group")["split"].nunique()
    return sorted(str(name) for name in splits.index[splits > 1])
