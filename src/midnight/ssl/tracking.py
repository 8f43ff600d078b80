"""MLflow, from a thread of its own: slow, dead or broken tracking never holds up training."""

import contextlib
import fcntl
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from midnight.atomic import write_json
from midnight.config import Mlflow

log = logging.getLogger(__name__)
CLOSE_SECONDS = 30.0
"""How long the end of a run waits for what is still to be sent."""
HTTP_SECONDS = "5"
QUEUE = 10_000
CARD = "mlflow.json"
PARAMS_PER_CALL = 100


def flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted names with text values."""
    if isinstance(value, Mapping):
        out: dict[str, str] = {}
        for name, item in value.items():
            out |= flatten(item, f"{prefix}.{name}" if prefix else str(name))
        return out
    return {prefix: str(value)}


class Tracker:
    """Sends a run's parameters, metrics and configuration file to MLflow; any failure is logged once and ends it."""

    def __init__(
        self, config: Mlflow, folder: Path, output: Path, params: Mapping[str, Any], resumed: bool = False
    ) -> None:
        """Start the thread; returns at once.

        Args:
            config: where to and under which experiment; `tracking_uri: off` for nowhere.
            folder: for the local sqlite file, where no server is named.
            output: the run's folder, with `config.yaml`; its name becomes the run's name.
            params: the resolved configuration.
            resumed: whether to go on with the MLflow run that `mlflow.json` in the run's folder names.
        """
        self.config, self.folder, self.output, self.params = config, folder, output, dict(params)
        self.resumed = resumed
        self.queue: queue.Queue[tuple[int, dict[str, float], int] | None] = queue.Queue(QUEUE)
        self.status = "FINISHED"
        self.thread: threading.Thread | None = None
        if config.tracking_uri != "off":
            self.thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
            self.thread.start()

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Hand over one step's numbers; drops them when tracking is dead or far behind."""
        if self.thread is None or not self.thread.is_alive():
            return
        numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
        with contextlib.suppress(queue.Full):
            self.queue.put_nowait((step, numbers, time.time_ns() // 1_000_000))

    def close(self, status: str = "FINISHED") -> None:
        """Send what is left, for a bounded time, and set the run's status (FINISHED or FAILED)."""
        if self.thread is None or not self.thread.is_alive():
            return
        self.status = status
        with contextlib.suppress(queue.Full):
            self.queue.put_nowait(None)
        self.thread.join(CLOSE_SECONDS)
        if self.thread.is_alive():
            log.warning(
                "MLflow: still not done after %.0f s; the last metrics are only in metrics.jsonl", CLOSE_SECONDS
            )

    def _run(self) -> None:
        try:
            client, run_id = self._connect()
            while (item := self.queue.get()) is not None:
                self._send(client, run_id, item)
            client.set_terminated(run_id, self.status)
        except Exception as error:  # whatever tracking does wrong, training goes on
            reason = " ".join(str(error).split())[:200]
            log.warning("MLflow: %s: %s; training goes on without tracking", type(error).__name__, reason)

    def _connect(self) -> tuple[Any, str]:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", HTTP_SECONDS)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        uri, artifacts = self.config.tracking_uri, None
        if uri is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{(self.folder / 'mlflow.db').resolve()}"
            artifacts = (self.folder / "mlartifacts").resolve().as_uri()
        with _locked(self.folder / ".mlflow.lock"):  # two runs that create one database at once spoil it
            client = MlflowClient(tracking_uri=uri)
            experiment = client.get_experiment_by_name(self.config.experiment)
            number = (
                experiment.experiment_id
                if experiment
                else client.create_experiment(self.config.experiment, artifact_location=artifacts)
            )
        return client, (self._continue(client) if self.resumed else None) or self._start(client, number)

    def _continue(self, client: Any) -> str | None:
        """The MLflow run of the training that is resumed, where the server still has it."""
        from mlflow.exceptions import MlflowException

        try:
            run_id = str(json.loads((self.output / CARD).read_text(encoding="utf-8"))["run_id"])
            client.update_run(run_id, status="RUNNING")
        except (OSError, ValueError, KeyError, MlflowException):
            return None
        return run_id

    def _start(self, client: Any, experiment: str) -> str:
        """Create the MLflow run with its parameters and `config.yaml`."""
        from mlflow.entities import Param

        run_id = client.create_run(experiment, run_name=self.output.name).info.run_id
        params = [Param(name, value[:500]) for name, value in flatten(self.params).items()]
        for first in range(0, len(params), PARAMS_PER_CALL):
            client.log_batch(run_id, params=params[first : first + PARAMS_PER_CALL])
        client.log_artifact(run_id, str(self.output / "config.yaml"))
        write_json(self.output / CARD, {"experiment_id": experiment, "run_id": run_id})
        return str(run_id)

    def _send(self, client: Any, run_id: str, item: tuple[int, dict[str, float], int]) -> None:
        from mlflow.entities import Metric

        step, numbers, now = item
        client.log_batch(run_id, metrics=[Metric(name, value, now, step) for name, value in numbers.items()])


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
