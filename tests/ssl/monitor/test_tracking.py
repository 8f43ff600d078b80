import logging
import socket
import time
from pathlib import Path

import pytest

from midnight.config import Mlflow
from midnight.ssl.monitor import tracking
from midnight.ssl.monitor.tracking import Tracker, flatten


def output(folder: Path) -> Path:
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text("a: 1\n")
    return folder / "run"


def test_parameters_are_flattened() -> None:
    assert flatten({"a": {"b": 1, "c": [1, 2]}, "d": None}) == {"a.b": "1", "a.c": "[1, 2]", "d": "None"}


def test_names_that_mlflow_refuses_are_made_legal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from mlflow.tracking import MlflowClient

    cohorts = {"own+tcga": {"weight": 1}, "run(1)": {"weight": 2}}
    Tracker(Mlflow(), tmp_path, output(tmp_path), {"cohorts": cohorts}).close()
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("midnight").experiment_id])
    assert run.data.params == {"cohorts.own_tcga.weight": "1", "cohorts.run_1_.weight": "2"}
    assert "without tracking" not in caplog.text


def test_local_runs_are_kept_and_gone_on_with(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    out = output(tmp_path)
    for resumed, step in ((False, 1), (True, 2)):
        tracker = Tracker(Mlflow(), tmp_path, out, {"recipe": {"seed": 3}}, resumed=resumed)
        tracker.log(step, {"loss": 2.5 / step, "note": None})
        (out / "crops.png").write_bytes(b"picture")
        tracker.log_file(out / "crops.png")
        tracker.close()
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("midnight")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"recipe.seed": "3"}
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == [(1, 2.5), (2, 1.25)]
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["config.yaml", "crops.png"]
    load = client.get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
    assert [(m.step, 0 <= m.value <= 100) for m in load] == [(1, True), (2, True)]
    assert run.data.metrics["system/process_memory_megabytes"] > 10


def test_the_load_is_looked_at_while_nothing_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "USAGE_SECONDS", 0.01)
    tracker = Tracker(Mlflow(tracking_uri="off"), tmp_path, tmp_path, {})
    items = tracker._items()
    first = next(items)
    tracker.queue.put((7, {"loss": 1.0}, 0))
    tracker.queue.put(None)
    rest = list(items)
    assert isinstance(first, tuple) and first[0] == 0 and "system/system_memory_usage_percentage" in first[1]
    assert rest[0] == (7, {"loss": 1.0}, 0)
    assert isinstance(rest[-1], tuple) and rest[-1][0] == 7 and "system/cpu_utilization_percentage" in rest[-1][1]


def test_a_file_that_is_gone_costs_only_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from mlflow.tracking import MlflowClient

    tracker = Tracker(Mlflow(), tmp_path, output(tmp_path), {})
    tracker.log_file(tmp_path / "absent.png")
    tracker.log(3, {"loss": 1.0})
    tracker.close()
    assert "MLflow: absent.png was not sent" in caplog.text
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("midnight").experiment_id])
    assert (run.info.status, run.data.metrics["loss"]) == ("FINISHED", 1.0)


def test_a_dead_server_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    started = time.monotonic()
    tracker = Tracker(Mlflow(tracking_uri="http://127.0.0.1:9"), tmp_path, output(tmp_path), {})
    for step in range(100):
        tracker.log(step, {"loss": 1.0})
        tracker.log_file(tmp_path / "run" / "config.yaml")
    assert time.monotonic() - started < 1
    tracker.close("FAILED")
    warnings = [record for record in caplog.records if record.name == "midnight.ssl.monitor.tracking"]
    assert [record.levelno for record in warnings] == [logging.WARNING]
    assert "training goes on without tracking" in caplog.text


def test_a_server_that_dies_later_is_one_warning_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying:
        calls = 0

        def log_batch(self, *arguments: object, **named: object) -> None:
            self.calls += 1
            if self.calls > 2:
                raise ConnectionError("server\nis gone")

    client = Dying()
    monkeypatch.setattr(Tracker, "_connect", lambda self: (client, "run"))
    tracker = Tracker(Mlflow(), tmp_path, output(tmp_path), {})
    for step in range(50):
        tracker.log(step, {"loss": 1.0})
    tracker.close()
    assert client.calls == 3
    assert [record.getMessage() for record in caplog.records if record.name == "midnight.ssl.monitor.tracking"] == [
        "MLflow: ConnectionError: server is gone; training goes on without tracking"
    ]


def test_a_server_that_never_answers_holds_nothing_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        # Calls that waited for an answer would take seconds each, and there are 20,000 of them.
        started, most = time.monotonic(), 60
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        tracker = Tracker(Mlflow(tracking_uri=uri), tmp_path, output(tmp_path), {})
        for step in range(1, 2 * tracking.QUEUE):
            tracker.log(step, {"loss": 1.0})
            tracker.log_file(tmp_path / "run" / "config.yaml")
        assert time.monotonic() - started < most
        tracker.close()
        assert time.monotonic() - started < most
    assert "MLflow: still not done" in caplog.text


def test_off_is_off(tmp_path: Path) -> None:
    tracker = Tracker(Mlflow(tracking_uri="off"), tmp_path, tmp_path, {})
    tracker.log(1, {"loss": 1.0})
    tracker.log_file(tmp_path / "crops.png")
    tracker.close()
    assert tracker.thread is None
    assert list(tmp_path.iterdir()) == []
