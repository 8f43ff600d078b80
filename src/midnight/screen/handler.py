"""Snakemake's log records as lines for a person; on a terminal with a status line below them.

What is not known to be idle talk is shown as it is, so that no error is hidden. All records in full, with every job's
reason, inputs and resources, are in Snakemake's own log, which it names at the end.
"""

import re
import sys
import threading
from collections.abc import Callable, Iterable
from logging import INFO, LogRecord
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from midnight.clock import duration
from midnight.tail import error_line, last_lines, read_tail

if TYPE_CHECKING:
    pass

LOOK_SECONDS = 3.0
"""Between two looks at a training's files."""
QUIET_SECONDS = 30.0
"""Without a terminal: between two lines about a training, at first; later a twentieth of its time."""
RESTART = "Trying to restart job "
EXITING = "Exiting because a job execution failed"
IDLE = (
    "Assuming unrestricted shared filesystem",
    "Building DAG of jobs",
    "Conda environments: ignored",
    "DAG of jobs will be updated",
    "Execute ",
    "Select jobs to execute",
    "Shell command: ",
    "Singularity containers: ignored",
    "Updating checkpoint dependencies",
    "Using shell: ",
    "host: ",
)
SCRIPT_FAILED = re.compile(
    r"RuleException:\s+CalledProcessError in file \"(.*?)\", line (\d+):\s+Command '.*' ((?:returned|died).*)",
    re.DOTALL,
)
"""What Snakemake says just before it says which job has failed."""


class LogHandler(LogHandlerBase):
    """One line per event, on standard error; a dry run is left to Snakemake's own form, on standard output."""

    def __post_init__(self) -> None:
        # Here, since every process of Snakemake imports this module and only the main one makes a handler.
        from midnight.screen.board import Board
        from midnight.screen.terminal import Terminal

        self.board: Board = Board()
        self.terminal: Terminal = Terminal(self._stream(), colour=not self.common_settings.nocolor)
        self.failures: dict[int, tuple[str, list[str]]] = {}  # title and logs of jobs that failed
        self.told: dict[int, float] = {}  # when a line about a training was written
        self.events: dict[str | None, Callable[[LogRecord], None]] = {
            LogEvent.RUN_INFO: self._planned,
            LogEvent.RESOURCES_INFO: self._resources,
            LogEvent.JOB_INFO: self._started,
            LogEvent.JOB_FINISHED: self._finished,
            LogEvent.JOB_ERROR: self._failed,
            LogEvent.PROGRESS: self._counted,
            LogEvent.ERROR: self._error,
            LogEvent.JOB_STARTED: _nothing,
            LogEvent.WORKFLOW_STARTED: _nothing,
        }
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="screen", daemon=True)
        if not self.common_settings.dryrun:
            self._ticker.start()

    def _stream(self) -> TextIO:
        return sys.stdout if self.common_settings.dryrun else sys.stderr

    @property
    def writes_to_stream(self) -> bool:
        """So that Snakemake's own handler is left out."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """Snakemake keeps its log file besides."""
        return False

    @property
    def has_filter(self) -> bool:
        """Snakemake's own, which knows `--quiet`, is taken."""
        return False

    @property
    def has_formatter(self) -> bool:
        """Snakemake's own is taken, for dry runs and for events that are not known here."""
        return False

    @property
    def needs_rulegraph(self) -> bool:
        """The numbers of jobs are enough."""
        return False

    def emit(self, record: LogRecord) -> None:
        """Show a record; Python's `logging` holds the handler's lock meanwhile."""
        try:
            event = getattr(record, "event", None)
            if self.common_settings.dryrun:
                self._as_it_is(_short_reason(record))
            else:
                self.events.get(event, self._as_it_is if event else self._message)(record)
                self._show_status()
        except BrokenPipeError:
            raise
        except Exception:  # as every handler of logging: the traceback is shown, and the jobs go on
            self.handleError(record)

    def close(self) -> None:
        """End the status line."""
        self._ended.set()
        self.terminal.status("")
        super().close()

    def _tick(self) -> None:
        """Now and then, also while nothing happens: how far the trainings are."""
        while not self._ended.wait(1.0 if self.terminal.live else LOOK_SECONDS):
            with self.lock:  # type: ignore[union-attr]
                if not self._ended.is_set():
                    self.tick()

    def tick(self) -> None:
        """Look at the trainings; renew the status line or, without a terminal, write a line about each when due."""
        self.board.look()
        if self.terminal.live:
            self._show_status()
            return
        for job in self.board.running.values():
            now = self.board.clock()
            due = self.told.get(job.number, job.started) + max(QUIET_SECONDS, (now - job.started) / 20)
            if job.progress is not None and (job.number not in self.told or now >= due):
                self.told[job.number] = now
                left = self.board.time_left()
                self.terminal.line(f"{self.board.count()} {job.title}: {job.progress}{f' | {left}' if left else ''}")

    def _show_status(self) -> None:
        self.terminal.status(self.board.status())

    def _planned(self, record: LogRecord) -> None:
        line = self.board.plan(record.__dict__.get("stats") or {})
        if line:
            self.terminal.line(line)

    def _resources(self, record: LogRecord) -> None:
        cores = record.__dict__.get("cores")
        if cores is not None:
            self.board.cores = int(cores)

    def _counted(self, record: LogRecord) -> None:
        self.board.counted(record.__dict__["done"], record.__dict__["total"])

    def _started(self, record: LogRecord) -> None:
        values = record.__dict__
        self.board.remember(values.get("benchmark"))
        job = self.board.start(
            values["jobid"], values["rule_name"], values.get("rule_msg"), values.get("output") or (), values["threads"]
        )
        self.told.pop(job.number, None)
        if job.shown and not self.terminal.live:
            self.terminal.line(f"{self.board.count()} {job.title}")

    def _finished(self, record: LogRecord) -> None:
        ended = self.board.end(record.__dict__["job_id"])
        if ended is not None and ended[0].shown:
            left = self.board.time_left()
            done = f"{self.board.count()} {ended[0].title}: done in {duration(ended[1])}"
            self.terminal.line(f"{done}{f' | {left}' if left else ''}", "good")

    def _failed(self, record: LogRecord) -> None:
        values = record.__dict__
        ended = self.board.end(values["jobid"], well=False)
        title, after = (ended[0].title, f" after {duration(ended[1])}") if ended else (values["rule_name"], "")
        self.terminal.line(f"FAILED: {title} (rule {values['rule_name']}, job {values['jobid']}){after}", "bad")
        for line in _details(values):
            self.terminal.line(f"    {line}")
        self.failures[values["jobid"]] = title, [str(log) for log in values.get("log") or ()]

    def _all_failed(self) -> Iterable[str]:
        """Once more at the end, since with keep-going they may have scrolled away."""
        for title, logs in self.failures.values():
            said = next(filter(None, (error_line(read_tail(Path(log))) for log in logs)), "")
            yield f"    {title}{f': {said}' if said else ''}{f' (log: {logs[0]})' if logs else ''}"

    def _error(self, record: LogRecord) -> None:
        text = record.getMessage()
        script = SCRIPT_FAILED.fullmatch(text.strip())
        self.terminal.line(f"script of {script[1]}, line {script[2]}: {script[3].strip()}" if script else text, "bad")

    def _message(self, record: LogRecord) -> None:
        """What is no event: shown, but for what says nothing."""
        text = record.getMessage()
        if text in ("", "None") or (record.levelno <= INFO and text.startswith(IDLE)):
            return
        if text.startswith(RESTART):
            number = int(text.removeprefix(RESTART).rstrip("."))
            job = self.board.again(number)
            self.failures.pop(number, None)
            text = f"Trying again: {job.title}" if job else text
        elif text.startswith(EXITING) and self.failures:
            text = "\n".join([f"Failed jobs: {len(self.failures)}", *self._all_failed()])
        self.terminal.line(text, "" if record.levelno <= INFO else "bad")

    def _as_it_is(self, record: LogRecord) -> None:
        text = self.format(record)
        if text and text != "None":
            self.terminal.line(text, "" if record.levelno <= INFO else "bad")


def _nothing(_: LogRecord) -> None:
    """The event is told otherwise."""


def _short_reason(record: LogRecord) -> LogRecord:
    """The same record with a line of a job's reason, which may name thousands of files."""
    reason = record.__dict__.get("reason")
    if isinstance(reason, str):
        record.reason = "; ".join(map(_short_cause, reason.split("; ")))
    return record


def _short_cause(cause: str) -> str:
    """`Missing output files: a, b, c, d` as `Missing output files: a and 3 more`."""
    what, colon, names = " ".join(cause.split()).partition(": ")
    first, *more = names.split(", ")
    return f"{what}{colon}{first} and {len(more)} more" if len(more) > 1 else f"{what}{colon}{names}"


def _details(values: dict[str, Any]) -> Iterable[str]:
    """Of a failed job: what the executor says, the last lines of its logs, and where these are."""
    if values.get("rule_msg"):
        yield str(values["rule_msg"])
    yield from (f"{name}: {value}" for name, value in (values.get("aux") or {}).items())
    if values.get("shellcmd"):
        yield f"shell: {values['shellcmd']}"
    logs = [str(log) for log in values.get("log") or ()]
    for log in logs:
        yield from last_lines(Path(log))
    if not logs:
        yield "this rule has no log; what it said is above"
