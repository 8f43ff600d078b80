"""Whole calls: from embeddings to records, and what is remembered."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from midnight.config import Evaluation
from midnight.errors import ConfigError, MidnightError
from midnight.evaluate import score as score_module
from midnight.evaluate.records import read_record
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
