import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from midnight.config import Evaluation
from midnight.errors import MidnightError
from midnight.evaluate import embed as embed_module
from midnight.evaluate import score as score_module
from midnight.evaluate.division import describe, divide, scored_split, split_groups
from midnight.evaluate.entries import Task
from midnight.evaluate.heads import fit_heads
from midnight.evaluate.records import Record, read_record
from midnight.evaluate.store import Embeddings
from tests.evaluate.eva_example import SIZE


def stored(features: np.ndarray, targets: Any, split: Any = "all", group: Any = "", grouped_by: str = "") -> Embeddings:
    table = pd.DataFrame({"split": split, "name": map(str, range(len(targets))), "target": 1.0 * np.asarray(targets)})
    index = {"grouped_by": grouped_by, "classes": ["A", "B", "C"]}
    return Embeddings(np.tile(features, 2).astype(np.float32), table.assign(group=group), index)


def longer(task: Task) -> Task:
    """With a fit that is long enough to learn what there is to learn."""
    values = replace(task.values, max_steps=100, lr=0.1)
    return replace(task, protocols={"demo": values})


def slides(rng: np.random.Generator, per_class: int = 6, tiles: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features that tell the slide and nothing of its class; targets; slides."""
    number = np.repeat(np.arange(2 * per_class), tiles)
    features = np.eye(2 * per_class)[number] * 4 + 0.1 * rng.normal(size=(len(number), 2 * per_class))
    return features, number % 2, np.char.add("s", number.astype(str))


def test_no_group_is_on_both_sides_and_classes_are_about_halved() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        groups = rng.integers(0, 30, 600)
        targets = np.where(groups < 12, groups % 3, rng.integers(0, 3, 600))  # some patients have all classes
        halves = split_groups(targets, groups, seed)
        assert halves is not None
        assert sorted(np.concatenate(list(halves.values()))) == list(range(600))
        assert not set(groups[halves["train"]]) & set(groups[halves["val"]])
        shares = np.bincount(targets[halves["train"]]) / np.bincount(targets)
        assert np.all((shares > 0.25) & (shares < 0.75))
    again, other = split_groups(targets, groups, 19), split_groups(targets, groups, 1)
    assert halves is not None and again is not None and other is not None
    assert again["train"].tolist() == halves["train"].tolist() != other["train"].tolist()


def test_halves_that_can_not_be_are_an_error_that_names_the_class(tasks: dict[str, Task]) -> None:
    one = stored(np.eye(6), [0, 0, 0, 1, 1, 1], group=list("pqrsss"), grouped_by="x")
    with pytest.raises(MidnightError, match="task folder: no halves of groups: all images of 'B' are of one group"):
        divide(tasks["folder"], one, 0)
    ring = stored(np.eye(6), [0, 0, 1, 1, 2, 2], group=list("pqqrrp"), grouped_by="x")
    with pytest.raises(MidnightError, match="each half would lack a class; add groups, or give a split"):
        divide(tasks["folder"], ring, 0)


def test_what_is_of_one_slide_is_scored_as_if_seen_only_where_slides_are_unknown(tasks: dict[str, Task]) -> None:
    features, targets, names = slides(np.random.default_rng(0))
    by_image = fit_heads(longer(tasks["folder"]), stored(features, targets), "cls", "cpu", 0)
    grouped = stored(features, targets, group=names, grouped_by="the column 'group'")
    by_slide = fit_heads(longer(tasks["folder"]), grouped, "cls", "cpu", 0)
    assert np.mean(by_image) > 0.95 > 0.7 > np.mean(by_slide)
    assert describe(grouped) == "random halves of 12 groups by the column 'group'"


@pytest.mark.parametrize(
    ("splits", "scored"), [(["train", "val", "test"], "test"), (["train", "test"], "test"), (["train", "val"], "val")]
)
def test_given_splits_are_kept(tasks: dict[str, Task], splits: list[str], scored: str) -> None:
    """The split that is scored has all labels wrong, so its score is 0 and any other's is not."""
    rng = np.random.default_rng(0)
    targets = np.tile([0, 1], 60)
    split = np.repeat(splits, 120 // len(splits))
    signal = np.where(split == scored, -1, 1)[:, None] * (8 * targets[:, None] - 4) + 0.1 * rng.normal(size=(120, 2))
    data = stored(signal, targets, split)
    assert scored_split(tasks["folder"], data) == scored
    assert fit_heads(longer(tasks["folder"]), data, "cls", "cpu", 0) == [0.0, 0.0, 0.0]
    each = 120 // len(splits)
    sizes = ", ".join(f"{name} {each}" for name in splits)
    assert describe(data) == f"the given split ({sizes} images); ± is that of repeated fits alone"


def test_the_test_split_chooses_nothing(tasks: dict[str, Task], monkeypatch: pytest.MonkeyPatch) -> None:
    from midnight.evaluate import heads

    calls = []

    def session(
        task: Task, module: Any, data: Any, runs: int, accelerator: str, seed: int, checkpoint: str
    ) -> list[float]:
        sizes = [len(part) for part in (data.datasets.train, data.datasets.val, data.datasets.test) if part]
        calls.append((task.scored, task.values.validate_every, checkpoint, sizes))
        return [0.5]

    monkeypatch.setattr(heads, "run_session", session)
    targets = np.tile([0, 1], 12)
    values = replace(tasks["folder"].values, runs=1, max_steps=500, batch_size=4)
    task = replace(tasks["folder"], protocols={"demo": values})
    for sizes in ((16, 4, 4), (16, 0, 8), (16, 8, 0)):
        fit_heads(task, stored(np.eye(24), targets, np.repeat(["train", "val", "test"], sizes)), "cls", "cpu", 0)
    # 125 epochs of 4 steps: validated about ten times
    assert calls == [("test", 12, "best", [16, 4, 4]), ("val", 8, "last", [16, 8]), ("val", 8, "last", [16, 8])]


def test_groups_on_both_sides_of_a_given_split_are_named() -> None:
    data = stored(np.eye(4), [0, 1, 0, 1], ["train", "train", "test", "test"], list("pqpr"), "the column 'group'")
    assert describe(data).endswith("; 1 groups by the column 'group' are in several splits: p")


def write_fields(root: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        level = 60 if "/A/" in f"/{name}" else 180
        pixels = level + np.random.default_rng(number).integers(-30, 30, (30, 30, 3))
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(root / name)


@pytest.fixture
def run(
    make_model: Callable[[int], Path], evaluation: Evaluation, tmp_path: Path
) -> Callable[[dict[str, Path]], dict[str, Record]]:
    """Embeds and scores these folders."""

    def run(folders: dict[str, Path]) -> dict[str, Record]:
        own = replace(evaluation, folders={name: str(path) for name, path in folders.items()})
        model, names = make_model(0), list(folders)
        outputs = {name: tmp_path / "results" / "embeddings" / name for name in names}
        embed_module.embed("tiny", model, SIZE, names, own, outputs)
        records = {("cls", name): tmp_path / "results" / "s" / f"{name}.json" for name in names}
        score_module.score_tasks("tiny", model, SIZE, names, ["cls"], own, outputs, records, "demo", 0)
        return {name: read_record(path) for (_, name), path in records.items()}

    return run


def test_several_folders_of_a_configuration_are_tasks_of_their_own(
    run: Callable[[dict[str, Path]], dict[str, Record]], tmp_path: Path
) -> None:
    write_fields(tmp_path / "plain", [f"{label}/{i}.png" for label in "AB" for i in range(4)])
    given = [f"{split}/{label}/{split}{i}.png" for split in ("train", "test") for label in "AB" for i in range(3)]
    write_fields(tmp_path / "given", given)
    write_fields(tmp_path / "listed", [f"{label}/{i}.png" for label in "AB" for i in range(4)])
    rows = [f"{label}/{i}.png,{label},p{i // 2}" for label in "AB" for i in range(4)]
    (tmp_path / "listed.csv").write_text("path,label,group\n" + "\n".join(f"listed/{row}" for row in rows))
    folders = {"plain": tmp_path / "plain", "given": tmp_path / "given", "listed": tmp_path / "listed.csv"}
    records = run(folders)
    assert {name: (r.task, r.column, r.label and r.split, r.kind) for name, r in records.items()} == {
        "plain": ("plain", "plain", "val", "folder"),
        "given": ("given", "given", "test", "folder"),
        "listed": ("listed", "listed", "val", "folder"),
    }
    assert records["plain"].extra == {}
    assert records["given"].extra["division"].startswith("the given split (train 6, test 6 images)")
    assert records["listed"].extra == {"division": "random halves of 2 groups by the column 'group'"}
    samples = pd.read_parquet(tmp_path / "results" / "embeddings" / "listed" / "samples.parquet")
    assert samples["group"].tolist() == ["p0", "p0", "p1", "p1"] * 2
    assert samples["name"].tolist()[0] == "listed/A/0.png"


def test_an_image_in_another_split_or_deeper_is_embedded_and_scored_anew(
    run: Callable[[dict[str, Path]], dict[str, Record]], tmp_path: Path
) -> None:
    root = tmp_path / "set"
    write_fields(root, [f"{label}/{i}.png" for label in "AB" for i in range(4)])
    first = run({"set": root})["set"]
    assert run({"set": root})["set"] == first
    (root / "A" / "deeper").mkdir()
    (root / "A" / "3.png").rename(root / "A" / "deeper" / "3.png")
    second = run({"set": root})["set"]
    assert second.data_hash != first.data_hash
    index = json.loads((tmp_path / "results" / "embeddings" / "set" / "index.json").read_text())
    assert (index["count"], index["classes"]) == (8, ["A", "B"])
