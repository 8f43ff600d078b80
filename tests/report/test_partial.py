import json
from pathlib import Path

import pytest

from midnight.config import load_config, plain
from midnight.evaluate.registry import own_models
from midnight.report.partial import report_partly

WEIGHTS = {"a": {"path": "/w/a", "source": "weights"}, "b": {"path": "/w/b", "source": "weights", "label": "Bee"}}
LINE = "2026-01-01 00:00:00,000 ERROR midnight: {}\n"
RECORD = {"size": 224, "pooling": "cls", "task": "folder", "column": "folder", "metric": "MulticlassAccuracy"}
RECORD |= {"values": [0.5, 0.7], "mean": 0.6, "protocol": "paper", "data": "real"}


def paths(results: Path) -> dict[tuple[str, str], list[str]]:
    return {(name, "224"): [str(results / "scores" / name / "224" / "cls" / "folder.json")] for name in "ab"}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Scores of model a, and the log of model b."""
    for name in "a":
        path = Path(paths(tmp_path)[name, "224"][0])
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(RECORD | {"model": name, "label": name}))
    log = tmp_path / "logs" / "embed" / "b-224.log"
    log.parent.mkdir(parents=True)
    log.write_text("loading\n" + LINE.format("/w/b: no <such> file"))
    return tmp_path


def report(results: Path) -> dict[str, str]:
    config = load_config({"results_dir": str(results), "evaluation": {"tasks": ["folder"], "weights": WEIGHTS}}, "c")
    return report_partly(plain(config), own_models(WEIGHTS), paths(results))


def test_a_failed_model_leaves_a_report_of_the_others(results: Path) -> None:
    assert report(results) == {"Bee at 224 px": "/w/b: no <such> file"}
    page = (results / "report.html").read_text()
    assert "Failed models" in page
    assert "<b>Bee at 224 px</b>: /w/b: no &lt;such&gt; file" in page
    assert "0.600" in page or ".600" in page


def test_the_reason_is_the_clear_line_or_else_the_exception(results: Path) -> None:
    log = results / "logs" / "embed" / "b-224.log"
    trace = "Traceback (most recent call last):\n  x\nValueError: odd shape\n"
    log.write_text(log.read_text() + trace)
    assert report(results) == {"Bee at 224 px": "/w/b: no <such> file"}
    log.write_text(trace)
    assert report(results) == {"Bee at 224 px": "ValueError: odd shape"}


def test_nothing_is_written_where_nothing_failed_or_nothing_is_there(results: Path) -> None:
    log = results / "logs" / "embed" / "b-224.log"
    text = log.read_text()
    log.write_text("loading\n")  # stopped by Ctrl-C
    assert report(results) == {}
    log.write_text(text)
    Path(paths(results)["a", "224"][0]).unlink()
    assert report(results) == {"Bee at 224 px": "/w/b: no <such> file"}
    assert not (results / "report.html").exists()
