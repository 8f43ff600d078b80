import errno
import json
import os
from pathlib import Path

import pytest

from midnight.atomic import atomic_path, write_json, write_text
from midnight.errors import MidnightError


def test_file_appears_with_its_content_and_ordinary_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "µm")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "µm"
    assert (tmp_path / "new" / "a.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_failure_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"old": 1})
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert json.loads(target.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_nan_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"score": float("nan")})
    assert not list(tmp_path.iterdir())


def test_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        pytest.raises(MidnightError, match=r"a\.txt: can't be written: No space left"),
        atomic_path(tmp_path / "a.txt"),
    ):
        full()


def test_suffix_is_kept_for_writers_that_choose_by_it(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "x.parquet") as temporary:
        assert temporary.suffix == ".parquet"
        assert temporary.parent == tmp_path


def test_a_writer_that_puts_its_own_file_there_gives_no_other_permissions(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.bin") as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "a.bin").stat().st_mode == (tmp_path / "plain").stat().st_mode
