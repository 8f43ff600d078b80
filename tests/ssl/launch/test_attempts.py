"""Attempts: which errors end a series of them, and what Snakemake makes of it."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from midnight.errors import GivenUpError, MidnightError
from midnight.ssl.launch.attempts import NOTE, attempted, forget_failures
from midnight.ssl.launch.signals import StoppedError

SNAKEFILE = """
from pathlib import Path
from midnight.ssl.launch.attempts import forget_failures

onstart:
    forget_failures([Path("run")])
    from midnight.screen.permanent import retry_no_permanent_errors
    retry_no_permanent_errors()

rule train:
    output: "model.txt"
    log: "train.log"
    retries: 10000
    script: "train.py"
"""
SCRIPT = """
from pathlib import Path
from midnight.logs import redirect
with redirect(snakemake.log[0]):
    from midnight.ssl.launch.attempts import attempted
    with attempted(Path("run")):
        made = len(list(Path("run/checkpoints").glob("step_*")))
        print("x", file=Path("tries.txt").open("a"), end="")
        if made < 2:
            Path(f"run/checkpoints/step_0000000{made}").mkdir(parents=True)
        raise ValueError("the same again")
"""


def fail(output: Path, error: Exception, saves: str | None = None) -> None:
    with pytest.raises(type(error)), attempted(output):
        if saves:
            (output / "checkpoints" / saves).mkdir(parents=True)
        raise error


def runs(output: Path) -> bool:
    """Whether another attempt is made."""
    try:
        with attempted(output):
            raise StoppedError("only asked")
    except StoppedError:
        return True
    except MidnightError as error:
        assert "not tried again: it came twice, with nothing saved in between" in str(error)
        return False


def test_the_same_error_twice_with_nothing_saved_ends_the_series(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fail(tmp_path, MidnightError("recipe: no such arch"))
    assert runs(tmp_path)
    fail(tmp_path, MidnightError("recipe: no such arch"))
    with pytest.raises(MidnightError, match=r"recipe: no such arch \(not tried again"), attempted(tmp_path):
        pytest.fail("tried again")
    assert "in fail" in caplog.text  # the traceback, which the next job's log would lack
    forget_failures([tmp_path, tmp_path / "none"])
    assert runs(tmp_path)


@pytest.mark.parametrize(
    ("error", "saves"),
    [
        (StoppedError("time limit"), None),
        (MidnightError("another"), None),
        (RuntimeError("nccl"), "step_00000012"),
        (RuntimeError("nccl"), "step_00000004"),
    ],
)
def test_a_stop_another_error_or_a_new_checkpoint_does_not(tmp_path: Path, error: Exception, saves: str | None) -> None:
    (tmp_path / "checkpoints" / "step_00000008.damaged").mkdir(parents=True)
    fail(tmp_path, RuntimeError("nccl"))
    fail(tmp_path, error, saves)
    assert runs(tmp_path)


def test_attempts_that_are_killed_are_counted_while_nothing_is_saved(tmp_path: Path) -> None:
    """A preempted or lost machine leaves no error: only that the attempt began."""

    def killed() -> None:
        with contextlib.suppress(KeyboardInterrupt), attempted(tmp_path):
            raise KeyboardInterrupt

    for _ in range(5):
        killed()
    (tmp_path / "checkpoints" / "step_00000004").mkdir(parents=True)
    for _ in range(5):
        killed()
    with pytest.raises(GivenUpError, match="5 attempts in a row ended before anything was saved"), attempted(tmp_path):
        pytest.fail("tried again")
    forget_failures([tmp_path])
    killed()
    assert runs(tmp_path)


def test_a_run_that_ended_well_keeps_no_note(tmp_path: Path) -> None:
    fail(tmp_path, RuntimeError("nccl"))
    assert [path.name for path in tmp_path.iterdir()] == [NOTE]
    with attempted(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_as_many_attempts_as_it_takes(tmp_path: Path) -> None:
    for number in range(40):
        fail(tmp_path, StoppedError("time limit"), f"step_{number:08d}")
    assert runs(tmp_path)


def test_a_damaged_checkpoint_is_none(tmp_path: Path) -> None:
    fail(tmp_path, RuntimeError("nccl"))
    fail(tmp_path, RuntimeError("nccl"), "step_00000012.damaged")
    assert not runs(tmp_path)


def test_a_full_disk_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("midnight.ssl.launch.attempts.write_json", refuse)
    with pytest.raises(MidnightError, match="free space and run again"), attempted(tmp_path):
        raise MidnightError("checkpoint can't be written: free space and run again")


def test_snakemake_stops_trying(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet"]
    for tries in (4, 6):  # two attempts save a checkpoint; of a workflow started again, none
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 1
        assert len((tmp_path / "tries.txt").read_text()) == tries
        assert "midnight: error: ValueError: the same again (not tried again" in result.stderr
    assert "in <module>" in (tmp_path / "train.log").read_text()
