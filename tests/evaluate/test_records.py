import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from midnight.errors import MidnightError
from midnight.evaluate.records import (
    RELEVANT,
    ROUNDING,
    Record,
    aggregate,
    mixed_versions,
    read_record,
    read_records,
    summarise,
    write_record,
)
from midnight.provenance import processor_versions, versions


def record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "model": "m",
        "label": "M",
        "size": 98,
        "pooling": "cls",
        "task": "bach",
        "column": "bach",
    }
    values |= {"metric": "x", "values": [0.5, 0.7], "protocol": "paper", "data": "real", "versions": {}}
    values |= {"config_hash": "c", "data_hash": "d", "model_hash": "h", "seconds": 1.0, "provenance": {}}
    return Record(**(values | summarise([0.5, 0.7], folds=False) | changes))


def test_the_papers_statistics() -> None:
    runs = summarise([0.1, 0.2, 0.4], folds=False)
    assert runs["mean"] == pytest.approx(0.7 / 3)
    deviation = math.sqrt(((0.1 - 0.7 / 3) ** 2 + (0.2 - 0.7 / 3) ** 2 + (0.4 - 0.7 / 3) ** 2) / 2)
    assert runs["stdev"] == pytest.approx(deviation)
    assert runs["sem"] == pytest.approx(deviation / math.sqrt(3))
    folds = summarise([0.1, 0.2, 0.4], folds=True)
    assert folds["stdev"] == pytest.approx(deviation * math.sqrt(2 / 3))
    assert summarise([0.3], folds=False)["stdev"] == 0


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [math.inf]])
def test_no_score_from_nothing_or_nan(values: list[float]) -> None:
    with pytest.raises(MidnightError, match="finite numbers"):
        summarise(values, folds=False)


def test_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "scores" / "m" / "98" / "cls" / "bach.json"
    write_record(path, record())
    assert read_record(path) == record()
    assert read_records(tmp_path) == [record()]
    assert json.loads(path.read_text())["sem"] == record().sem


def test_nan_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(MidnightError, match="not a finite number"):
        write_record(path, record(mean=math.nan))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{", "[]", '{"model": "m"}'])
def test_what_is_no_record(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(MidnightError, match=r"a\.json: not a score record"):
        read_record(path)


def test_the_average_takes_hest_as_one_column() -> None:
    cells = [
        record(mean=0.9),
        record(task="hest-a", column="hest", mean=0.2),
        record(task="hest-b", column="hest", mean=0.4),
    ]
    assert aggregate(cells) == pytest.approx((0.9 + 0.3) / 2)


@pytest.mark.parametrize(
    ("key", "value"),
    [("protocol", "eva-default"), ("data", "demo"), ("pooling", "cls_mean"), ("model", "n"), ("size", 1)],
)
def test_nothing_is_mixed(key: str, value: Any) -> None:
    other = dataclasses.replace(record(task="crc", column="crc"), **{key: value})
    with pytest.raises(MidnightError, match=f"across {key}"):
        aggregate([record(), other])


def test_no_task_twice_and_not_none() -> None:
    with pytest.raises(MidnightError, match="there twice"):
        aggregate([record(), record()])
    with pytest.raises(MidnightError, match="no scores"):
        aggregate([])


def test_versions_that_change_scores_are_told_apart() -> None:
    same = {"torch": "2.9", "jsonargparse": "4.40", "kaiko-eva": "0.4.5"}
    assert mixed_versions([same, dict(same), same | {"snakemake": "9"}, {}]) == []
    other = same | {"torch": "2.10", "jsonargparse": "4.41", "openslide-python": "2"}
    expected = ["scores of different versions: torch 2.10 and 2.9, jsonargparse 4.40 and 4.41"]
    assert mixed_versions([same, other]) == expected


def test_scores_of_several_processors_are_averaged_and_noted() -> None:
    here = {"torch": "2.10", "BLAS": "openblas 0.3.30 SkylakeX", "numpy SIMD": "X86_V4", "torch CPU": "AVX512"}
    there = here | {"BLAS": "openblas 0.3.30 Haswell"}
    records = [record(versions=here), record(task="b", column="b", versions=there)]
    assert aggregate(records) == pytest.approx(0.6)
    (note,) = mixed_versions(item.versions for item in records)
    assert "round differently" in note
    assert note.endswith("BLAS openblas 0.3.30 Haswell and openblas 0.3.30 SkylakeX")


def test_what_rounds_is_named_and_computes_nothing_again() -> None:
    assert set(ROUNDING) == set(processor_versions())
    assert not set(ROUNDING) & set(RELEVANT)


def test_a_record_names_what_its_score_depends_on() -> None:
    assert set(RELEVANT) == {"kaiko-eva", "jsonargparse", "scikit-learn", "torch", "numpy", "timm"}
    for name in RELEVANT:
        assert re.match(r"\d+\.\d+", versions()[name])
