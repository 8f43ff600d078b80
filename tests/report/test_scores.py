import json
from pathlib import Path

import numpy as np
import pytest

from midnight.errors import MidnightError
from midnight.report.scores import finite, load_scores, parse_score
from tests.report.example import score_record


def record() -> dict:
    return score_record("demo", "cls_mean", "bach", np.random.default_rng(0))


def test_a_record_becomes_a_score() -> None:
    raw = record()
    score = parse_score(raw)
    assert (score.model, score.column, score.n_runs, score.mean) == ("demo", "bach", 5, raw["mean"])
    assert score.error == pytest.approx(raw["sem"])


def test_the_error_is_computed_when_the_record_lacks_it() -> None:
    raw = record()
    expected = raw.pop("sem")
    assert parse_score(raw).error == pytest.approx(expected)


def test_nan_and_infinity_become_none() -> None:
    score = parse_score(record() | {"mean": float("nan"), "sem": float("inf"), "values": [float("nan")]})
    assert score.mean is None
    assert score.error is None
    assert finite("0.5") is None
    assert finite(True) is None


def test_heading_case_of_the_column_does_not_matter() -> None:
    assert parse_score(record() | {"column": "HEST"}).column == "hest"


@pytest.mark.parametrize("text", ["", "[1]", '{"model": "m"}', "not json"])
def test_a_bad_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bach.json"
    path.write_text(text)
    with pytest.raises(MidnightError, match=r"bach\.json"):
        load_scores([path])


def test_scores_keep_the_order_of_the_paths(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).write_text(json.dumps(record() | {"label": name}))
    assert [score.label for score in load_scores([tmp_path / "b", tmp_path / "a"])] == ["b", "a"]
