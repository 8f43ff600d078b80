import errno
from pathlib import Path

import pytest

from midnight.disk import writing
from midnight.errors import MidnightError


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_what_is_needed_and_what_to_do(tmp_path: Path, code: int) -> None:
    with pytest.raises(MidnightError, match=f"{tmp_path}: the disk is full: 7 more bytes are needed; make room$"):
        with writing(tmp_path, "make room", 7):
            raise OSError(code, "No space left")
    with pytest.raises(MidnightError, match="the disk is full: No space left; make room$"):
        with writing(tmp_path, "make room"):
            raise OSError(code, "No space left")


def test_other_failures_name_their_reason_and_the_rest_passes(tmp_path: Path) -> None:
    with pytest.raises(MidnightError, match=f"{tmp_path}: can't be written: Is a directory$"):
        with writing(tmp_path, "make room"):
            tmp_path.open("w")
    with pytest.raises(ValueError, match="other"), writing(tmp_path, "make room"):
        raise ValueError("other")
