"""MLflow, from a thread of its own: slow, dead or broken tracking never holds up training."""

import contextlib
import fcntl
import json
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from midnight.atomic import write_json
from midnight.config import Mlflow
from midnight.ssl.monitor.usage import system_usage

log = logging.getLogger(__name__)
CLOSE_SECONDS = 30.0
"""How long the end of a run waits for what is still to be sent."""
HTTP_SECONDS = "5"
QUEUE = 10_000
CARD = "mlflow.json"
PARAMS_PER_CALL = 100
USAGE_SECONDS = 30.0
"""Between two looks at CPU, memory and GPU."""

Metrics = tuple[int, dict[str, float], int]
"""Step, values, milliseconds since 1970."""


def flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted names with text values."""
    if isinstance(value, Mapping):
        out: dict[str, str] = {}
        for name, item in value.items():
            out |= flatten(item, f"{prefix}.{name}" if prefix else str(name))
        return out
    return {prefix: str(value)}


class Tracker:
    """Sends a run's parameters, metrics, files and the machine's load to MLflow.

    A failure is logged once and ends it; a file that can't be sent costs only itself.
    """

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
        self.queue: queue.Queue[Metrics | Path | None] = queue.Queue(QUEUE)
        self.status = "FINISHED"
        self.thread: threading.Thread | None = None
        if config.tracking_uri != "off":
            self.thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
            self.thread.start()

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Hand over one step's numbers; drops them when tracking is dead or far behind."""
        numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
        self._put((step, numbers, _now()))

    def log_file(self, path: Path) -> None:
        """Hand over a file, which is sent as it is when its turn comes; as `log` in all else."""
        self._put(Path(path))

    def _put(self, item: Metrics | Path) -> None:
        if self.thread is not None and self.thread.is_alive():
            with contextlib.suppress(queue.Full):
                self.queue.put_nowait(item)

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
            for item in self._items():
                self._send(client, run_id, item)
            client.set_terminated(run_id, self.status)
        except Exception as error:  # whatever tracking does wrong, training goes on
            log.warning("MLflow: %s; training goes on without tracking", _line(error))

    def _items(self) -> Iterator[Metrics | Path]:
        """What is handed over, until the end; now and then, and at the end, the machine's load at the newest step."""
        system_usage()  # the load is measured from here on
        step, open_, due = 0, True, time.monotonic() + USAGE_SECONDS
        while open_:
            with contextlib.suppress(queue.Empty):
                item = self.queue.get(timeout=max(0.0, due - time.monotonic()))
                open_ = item is not None
                step = item[0] if isinstance(item, tuple) else step
                if item is not None:
                    yield item
            if not open_ or time.monotonic() >= due:
                due = time.monotonic() + USAGE_SECONDS
                yield step, system_usage(), _now()

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
        values = {legal(name): value for name, value in flatten(self.params).items()}
        params = [Param(name, value[:500]) for name, value in values.items()]
        for first in range(0, len(params), PARAMS_PER_CALL):
            client.log_batch(run_id, params=params[first : first + PARAMS_PER_CALL])
        client.log_artifact(run_id, str(self.output / "config.yaml"))
        write_json(self.output / CARD, {"experiment_id": experiment, "run_id": run_id})
        return str(run_id)

    def _send(self, client: Any, run_id: str, item: Metrics | Path) -> None:
        from mlflow.entities import Metric

        if isinstance(item, Path):
            try:
                client.log_artifact(run_id, str(item))
            except Exception as error:
                log.warning("MLflow: %s was not sent: %s", item.name, _line(error))
            return
        step, numbers, now = item
        client.log_batch(run_id, metrics=[Metric(name, value, now, step) for name, value in numbers.items()])


def legal(name: str) -> str:
    """A name as MLflow takes it: `_` for each character but letters, digits and the characters _ - . / : and space."""
    return re.sub(r"[^\w\-./: ]", "_", name)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _now() -> int:
    return time.time_ns() // 1_000_000


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
