import logging
import socket
import time
from pathlib import Path

import pytest

from midnight.config import Mlflow
from midnight.ssl import tracking
from midnight.ssl.tracking import Tracker, flatten


def output(folder: Path) -> Path:
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text("a: 1\n")
    return folder / "run"


def test_parameters_are_flattened() -> None:
    assert flatten({"a": {"b": 1, "c": [1, 2]}, "d": None}) == {"a.b": "1", "a.c": "[1, 2]", "d": "None"}


def test_local_runs_are_kept_and_gone_on_with(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    out = output(tmp_path)
    for resumed, step in ((False, 1), (True, 2)):
        tracker = Tracker(Mlflow(), tmp_path, out, {"recipe": {"seed": 3}}, resumed=resumed)
        tracker.log(step, {"loss": 2.5 / step, "note": None})
        tracker.close()
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("midnight")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"recipe.seed": "3"}
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == [(1, 2.5), (2, 1.25)]
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["config.yaml"]


def test_a_dead_server_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    started = time.monotonic()
    tracker = Tracker(Mlflow(tracking_uri="http://127.0.0.1:9"), tmp_path, output(tmp_path), {})
    for step in range(100):
        tracker.log(step, {"loss": 1.0})
    assert time.monotonic() - started < 1
    tracker.close("FAILED")
    warnings = [record for record in caplog.records if record.name == "midnight.ssl.tracking"]
    assert [record.levelno for record in warnings] == [logging.WARNING]
    assert "training goes on without tracking" in caplog.text


def test_a_server_that_never_answers_holds_nothing_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        tracker = Tracker(Mlflow(tracking_uri=uri), tmp_path, output(tmp_path), {})
        tracker.log(1, {"loss": 1.0})
        tracker.close()
        assert time.monotonic() - started < 3
    assert "MLflow: still not done" in caplog.text


def test_off_is_off(tmp_path: Path) -> None:
    tracker = Tracker(Mlflow(tracking_uri="off"), tmp_path, tmp_path, {})
    tracker.log(1, {"loss": 1.0})
    tracker.close()
    assert tracker.thread is None
    assert list(tmp_path.iterdir()) == []
