"""Whole calls: from embeddings to records, and what is remembered."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from midnight.config import Evaluation
from midnight.errors import ConfigError, MidnightError
from midnight.evaluate import cells as cells_module
from midnight.evaluate import scheduling
from midnight.evaluate import score as score_module
from midnight.evaluate.entries import Model, Perturbation, Task
from midnight.evaluate.records import RELEVANT, read_record
from midnight.evaluate.store import Embeddings
from tests.evaluate.eva_example import EMBEDDED, SIZE, run_embed


def call_score(
    model_dir: Path,
    evaluation: Evaluation,
    folders: dict[str, Path],
    output: Path,
    names: list[str],
    seed: int = 0,
    threads: int = 1,
) -> dict[tuple[str, str], Path]:
    places = {(p, n): output / "scores" / "tiny" / "28" / p / f"{n}.json" for p in ("cls", "cls_mean") for n in names}
    where = (folders, places, "demo", seed)
    score_module.score_tasks("tiny", model_dir, SIZE, names, ["cls", "cls_mean"], evaluation, *where, threads=threads)
    return places


def test_threads_change_no_score(make_model: Callable[[int], Path], evaluation: Evaluation, tmp_path: Path) -> None:
    names = [*EMBEDDED, "consep"]
    folders = run_embed(make_model(4), evaluation, tmp_path)
    one, several = (
        call_score(make_model(4), evaluation, folders, tmp_path / str(threads), names, threads=threads)
        for threads in (1, 3)
    )
    assert all(read_record(path).values == read_record(several[place]).values for place, path in one.items())
    assert {place for place, path in several.items() if path.is_file()} == set(one)


def test_all_kinds_end_as_records_and_stay_cached(
    make_model: Callable[[int], Path], evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir, names = make_model(4), [*EMBEDDED, "consep"]
    folders = run_embed(model_dir, evaluation, tmp_path)
    places = call_score(model_dir, evaluation, folders, tmp_path, names)
    records = {place: read_record(path) for place, path in places.items()}
    shots = records["cls", "shots"]
    assert (shots.n_runs, shots.metric, shots.split, shots.protocol) == (3, "BinaryBalancedAccuracy", "test", "demo")
    assert (shots.label, shots.published, shots.data, shots.column) == ("Tiny", "UNI", "demo", "pc10")
    assert shots.sem == pytest.approx(np.std(shots.values, ddof=1) / np.sqrt(3))
    assert shots.values != records["cls_mean", "shots"].values
    assert shots.versions["kaiko-eva"] == "0.4.5"
    consep, same = records["cls", "consep"], records["cls_mean", "consep"]
    assert consep.extra["pooling_independent"]
    assert consep.values == same.values
    assert (consep.pooling, same.pooling) == ("cls", "cls_mean")
    hest = records["cls_mean", "hest"]
    assert hest.n_runs == 3
    assert hest.stdev == pytest.approx(np.std(hest.values))
    assert len(hest.extra["per_gene"][0]) == 50
    assert hest.mean > 0.3
    assert records["cls", "folder"].mean > 0.6
    assert len(list((tmp_path / "cache" / "scores").glob("*.json"))) == 7

    def compute(job: Any, cell: Any, *_: Any) -> None:
        raise AssertionError(f"computed again: {cell.task.name}")

    monkeypatch.setattr(score_module, "compute", compute)
    places["cls", "hest"].unlink()
    call_score(model_dir, evaluation, folders, tmp_path, names)
    assert read_record(places["cls", "hest"]) == records["cls", "hest"]
    with pytest.raises(AssertionError, match="computed again: shots"):
        call_score(model_dir, evaluation, folders, tmp_path, names, seed=1)


def test_demo_data_are_never_called_real(
    make_model: Callable[[int], Path], evaluation: Evaluation, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="shots is generated data"):
        score_module.score_tasks("tiny", make_model(0), SIZE, ["shots"], ["cls"], evaluation, {}, {}, "real", 0)
    with pytest.raises(MidnightError, match=r"task folder: no embeddings of folder given"):
        call_score(make_model(0), evaluation, {}, tmp_path, ["folder"])


# Which process computes a cell

Cells = list[tuple[Task, tuple[str, ...]]]


@pytest.mark.parametrize(
    ("device", "threads", "stay", "processes"),
    [
        ("cpu", 1, ["tile", "folder", "hest", "slide", "segmentation"], 0),
        ("cpu", 3, ["segmentation"], 2),
        ("cpu", 9, ["segmentation"], 4),
        ("cuda", 1, ["tile", "folder", "hest", "slide", "segmentation"], 0),
        ("cuda", 3, ["slide", "segmentation"], 2),
        ("cuda", 9, ["slide", "segmentation"], 3),
    ],
)
def test_what_needs_the_encoder_or_a_gpu_stays_in_this_process(
    tasks: dict[str, Task],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    threads: int,
    stay: list[str],
    processes: int,
) -> None:
    monkeypatch.setattr(scheduling, "pick_device", lambda _: torch.device(device))
    cells: Cells = [(tasks[name], ("cls",)) for name in ("shots", "folder", "hest", "slides", "consep")]
    here, forked, found = scheduling.share_cells(score_module.score_cell, make_job(), cells, threads)
    assert kinds(here) == stay
    assert sorted(kinds(here) + kinds(forked)) == sorted(task.kind for task, _ in cells)
    assert found == processes
    own = {"slide", "segmentation"} if device == "cuda" else {"segmentation"}
    calls: list[Any] = here + forked
    for call in calls:
        owner, task = call.args[:2]
        assert owner.evaluation.accelerator == ("auto" if task.kind in own else "cpu"), task.kind


@pytest.mark.parametrize(("threads", "processes"), [(1, 0), (2, 2), (3, 2)])
def test_without_a_cell_here_all_threads_fork(tasks: dict[str, Task], threads: int, processes: int) -> None:
    cells: Cells = [(tasks[name], ("cls",)) for name in ("shots", "folder")]
    assert scheduling.share_cells(score_module.score_cell, make_job("cpu"), cells, threads)[2] == processes


def kinds(calls: list[Any]) -> list[str]:
    return [call.args[1].kind for call in calls]


def make_job(accelerator: str = "auto", **changes: Any) -> cells_module.Scoring:
    model, evaluation = Model("dir", "Tiny", [SIZE], name="tiny"), Evaluation(accelerator=accelerator)
    values: dict[str, Any] = {"size": SIZE, "data": "demo", "seed": 0}
    return cells_module.Scoring(model=model, model_dir=None, evaluation=evaluation, **(values | changes))


# What a cached cell depends on


def key_of(task: Task, index: dict[str, str] | None = None, pooling: str = "cls", **job: Any) -> str:
    values = {"data_hash": "d", "model_hash": "m", "precision": "float32", "base": "b"} | (index or {})
    stored = Embeddings(np.zeros((1, 2), np.float32), pd.DataFrame(), values)
    return score_module.describe_cell(make_job(**job), task, (pooling,), Path("data"), stored).key


def make_variant(task: Task, sigma: float = 0.1) -> Task:
    return dataclasses.replace(task, variant_of="shots", perturb=Perturbation(hed_sigma=sigma))


@pytest.mark.parametrize(
    "changes",
    [
        {"index": {"data_hash": "other"}},
        {"index": {"model_hash": "other"}},
        {"index": {"precision": "bfloat16"}},
        {"pooling": "cls_mean"},
        {"seed": 1},
        {"size": 42},
        {"data": "real"},
    ],
    ids=str,
)
def test_another_input_is_another_cell(tasks: dict[str, Task], changes: dict[str, Any]) -> None:
    assert key_of(tasks["shots"], **changes) != key_of(tasks["shots"])
    assert key_of(tasks["shots"]) == key_of(tasks["shots"])


def test_another_base_or_perturbation_is_another_cell_of_a_variant(tasks: dict[str, Task]) -> None:
    variant = make_variant(tasks["shots"])
    keys = [key_of(tasks["shots"]), key_of(variant), key_of(variant, {"base": "other"})]
    assert len({*keys, key_of(make_variant(tasks["shots"], 0.2))}) == 4


def test_another_protocol_or_metric_is_another_cell(tasks: dict[str, Task]) -> None:
    slower = dataclasses.replace(tasks["shots"].values, lr=0.02)
    others: list[dict[str, Any]] = [{"protocols": {"demo": slower}}, {"metric": "BinaryAUROC"}, {"scored": "val"}]
    keys = [key_of(dataclasses.replace(tasks["shots"], **change)) for change in others]
    assert len({key_of(tasks["shots"]), *keys}) == 4


@pytest.mark.parametrize("name", RELEVANT)
def test_another_version_is_another_cell(tasks: dict[str, Task], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before, installed = key_of(tasks["shots"]), score_module.versions()
    monkeypatch.setattr(cells_module, "versions", lambda: installed | {"snakemake": "0"})
    assert key_of(tasks["shots"]) == before
    monkeypatch.setattr(cells_module, "versions", lambda: installed | {name: "0"})
    assert key_of(tasks["shots"]) != before


def test_another_revision_is_another_cell(tasks: dict[str, Task], monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(tasks["shots"])
    monkeypatch.setattr(cells_module, "REVISION", cells_module.REVISION + 1)
    assert key_of(tasks["shots"]) != before


@pytest.mark.parametrize("name", ["label", "column", "source", "licence"])
def test_what_people_may_rename_leaves_a_cell_as_it_is(tasks: dict[str, Task], name: str) -> None:
    for task in (tasks["shots"], make_variant(tasks["shots"])):
        change: dict[str, Any] = {name: "other"}
        assert key_of(dataclasses.replace(task, **change)) == key_of(task)
