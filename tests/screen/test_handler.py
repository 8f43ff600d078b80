import io
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from snakemake.logging import DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry
from snakemake_interface_logger_plugins.tests import MockOutputSettings

from midnight.screen.handler import LogHandler


class Screen:
    """A handler whose lines are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tty: bool = False, dryrun: bool = False) -> None:
        self.stream = io.StringIO()
        self.stream.isatty = lambda: tty  # type: ignore[method-assign]
        monkeypatch.setattr(LogHandler, "_stream", lambda handler: self.stream)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        settings = MockOutputSettings()
        settings.dryrun = dryrun
        self.handler = LogHandler(settings, None)
        self.handler.setFormatter(DefaultFormatter(show_failed_logs=True))
        self.now = 0.0
        self.handler.board.clock = lambda: self.now

    def say(self, event: LogEvent | None, text: str = "", level: int = logging.INFO, **values: Any) -> None:
        record = logging.LogRecord("snakemake", level, "x.py", 1, text, (), None)
        record.__dict__ |= {"event": event} | values if event else values
        self.handler.handle(record)

    def start(self, number: int = 1, rule: str = "train", message: str | None = "Training demo", **values: Any) -> None:
        known = {"output": ["models/demo/teacher.safetensors"], "threads": 1, "benchmark": None, "reason": "x" * 5000}
        self.say(LogEvent.JOB_INFO, jobid=number, rule_name=rule, rule_msg=message, **(known | values))

    def fail(self, log: list[str], **values: Any) -> None:
        known = {"rule_msg": None, "aux": {}, "shellcmd": None}
        self.say(LogEvent.JOB_ERROR, "Error", logging.ERROR, jobid=1, rule_name="train", log=log, **(known | values))

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    made = Screen(monkeypatch)
    yield made
    made.handler.close()


def test_snakemake_finds_it_by_name() -> None:
    assert LoggerPluginRegistry().get_plugin("midnight").log_handler is LogHandler  # type: ignore[attr-defined]


def test_one_line_per_event_without_control_codes_or_reasons(screen: Screen) -> None:
    screen.say(LogEvent.RESOURCES_INFO, "Provided cores: 2", cores=2)
    screen.say(LogEvent.RUN_INFO, "Job stats: …", stats={"train": 1, "report": 1, "all": 1, "total": 3})
    screen.say(LogEvent.JOB_STARTED, "Execute 1 jobs...", jobs=[1])
    screen.start()
    screen.now = 75.0
    screen.say(LogEvent.JOB_FINISHED, "Finished jobid: 1", job_id=1)
    screen.say(LogEvent.PROGRESS, "None", done=1, total=3)
    assert screen.lines == [
        "3 jobs: training 1, report 1",
        "[0/3] Training demo",
        "[1/3] Training demo: done in 1 min 15 s",
    ]
    assert "\033" not in screen.text and "\r" not in screen.text


def test_the_training_s_progress_is_a_line_now_and_then(screen: Screen, tmp_path: Path) -> None:
    screen.say(LogEvent.RUN_INFO, stats={"train": 1})
    screen.start(output=[str(tmp_path / "teacher.safetensors")])
    screen.handler.tick()
    (tmp_path / "config.yaml").write_text("recipe: {training: {iterations: 60}}\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 30, "seconds": 90, "images_per_s": 21.4}\n')
    for now in range(0, 50, 3):
        screen.now = float(now)
        screen.handler.tick()
    progress = "[0/1] Training demo: step 30 of 60, 21.4 images/s, 1 min 30 s left"
    assert screen.lines[2:] == [progress, progress], "at first, and after 30 s"


def test_a_failure_shows_the_last_lines_of_its_log_and_where_it_is(screen: Screen, tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    cause = "".join(f"  File {i}\n" for i in range(1000))
    log.write_text(f"50%\r100%\n2026-11-26 02:00:00,000 ERROR midnight: the disk is full\nTraceback:\n{cause}OSError\n")
    screen.start()
    screen.now = 2.0
    screen.fail([str(log)], aux={"external_jobid": "77"}, rule_msg="see the cluster's log")
    assert screen.lines[1] == "FAILED: Training demo (rule train, job 1) after 2.0 s"
    assert screen.lines[2:4] == ["    see the cluster's log", "    external_jobid: 77"]
    assert screen.lines[4] == "    error: the disk is full"
    assert screen.lines[-2:] == ["    | OSError", f"    log: {log}"]
    assert len(screen.lines) < 20
    screen.say(None, "Exiting because a job execution failed. Look above for error messages", logging.ERROR)
    assert screen.lines[-2:] == ["Failed jobs: 1", f"    Training demo: the disk is full (log: {log})"]


def test_a_script_s_status_is_one_line(screen: Screen) -> None:
    text = (
        "RuleException:\nCalledProcessError in file \"/x/rules/train.smk\", line 9:\nCommand 'set -e; python a.py' {}"
    )
    for end in ("returned non-zero exit status 137.", "died with <Signals.SIGKILL: 9>."):
        screen.say(LogEvent.ERROR, text.format(end), logging.ERROR, exception="RuleException")
        assert screen.lines[-1] == f"script of /x/rules/train.smk, line 9: {end}"
    other = 'RuleException:\nValueError in file "/x/rules/train.smk", line 9:\nno'
    screen.say(LogEvent.ERROR, other, logging.ERROR)
    assert screen.text.endswith(f"{other}\n")


@pytest.mark.parametrize(("content", "expected"), [(None, "(No such file or directory)"), ("", "(empty)")])
def test_a_failure_without_a_log_says_so(screen: Screen, tmp_path: Path, content: str | None, expected: str) -> None:
    log = tmp_path / "train.log"
    if content is not None:
        log.write_text(content)
    screen.fail([str(log)])
    assert screen.lines == ["FAILED: train (rule train, job 1)", f"    log: {log} {expected}"]


def test_another_attempt_is_named(screen: Screen) -> None:
    screen.start()
    screen.fail([])
    screen.say(None, "Trying to restart job 1.")
    assert screen.lines[-1] == "Trying again: Training demo"
    assert not screen.handler.failures


@pytest.mark.parametrize("event", [None, LogEvent.ERROR, LogEvent.GROUP_INFO, LogEvent.DEBUG_DAG])
@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING, logging.ERROR])
def test_what_is_not_known_is_shown(screen: Screen, event: LogEvent | None, level: int) -> None:
    values = {"file": "x", "exception": "e"} if event == LogEvent.DEBUG_DAG else {}
    screen.say(event, "something that nobody foresaw", level, **values)
    assert "something that nobody foresaw" in screen.text


def test_idle_talk_is_left_out_but_never_a_warning(screen: Screen) -> None:
    screen.say(None, "Building DAG of jobs...")
    screen.say(None, "None")
    assert screen.text == ""
    screen.say(None, "Building DAG of jobs failed", logging.WARNING)
    assert screen.lines == ["Building DAG of jobs failed"]


def test_a_record_that_can_t_be_read_is_told(screen: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    screen.say(LogEvent.JOB_INFO, "a form that a later Snakemake has")
    assert "Logging error" in capsys.readouterr().err


def test_on_a_terminal_a_status_line_stays_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: type("Size", (), {"columns": 30}))
    screen = Screen(monkeypatch, tty=True)
    screen.say(LogEvent.RUN_INFO, stats={"train": 1, "embed": 1})
    screen.start(message="Training a model with a long name")
    drawn = screen.text.splitlines(keepends=True)[-1]
    assert drawn.endswith("[0/2] training: Training a m…\r")
    screen.say(LogEvent.JOB_FINISHED, job_id=1)
    assert "\r\033[K\033[32m[1/2] Training a model with a long name: done in 0.0 s\033[0m\n" in screen.text
    screen.handler.close()
    assert screen.text.endswith("\r\033[K")


def test_a_dry_run_keeps_snakemake_s_form_with_short_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, dryrun=True)
    files = ", ".join(f"results/{i}.json" for i in range(1000))
    screen.start(reason=f"Missing output files: {files}; Params have changed since last execution: \n a -> b; Code")
    (reason,) = [line for line in screen.lines if line.startswith("Reason")]
    assert reason.startswith(
        "Reason: Missing output files: results/0.json and 999 more; Params have changed since last"
    )
    assert reason.endswith("execution: a -> b; Code")
    screen.handler.close()


def test_the_thread_ends_with_the_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, tty=True)
    assert any(thread.name == "screen" for thread in threading.enumerate())
    screen.handler.close()
    screen.handler._ticker.join(10)
    assert not screen.handler._ticker.is_alive()
