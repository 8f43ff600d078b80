import errno
from pathlib import Path

import pytest

from midnight.disk import writing
from midnight.errors import MidnightError


@pytest.mark.parametrize(("needed", "why"), [(7, "7 more bytes are needed"), (0, "No space left")])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_what_is_needed_and_what_to_do(tmp_path: Path, code: int, needed: int, why: str) -> None:
    expected = f"{tmp_path}: the disk is full: {why}; make room$"
    with pytest.raises(MidnightError, match=expected), writing(tmp_path, "make room", needed):
        raise OSError(code, "No space left")


def test_other_failures_name_their_reason_and_the_rest_passes(tmp_path: Path) -> None:
    expected = f"{tmp_path}: can't be read or written: Is a directory$"
    with pytest.raises(MidnightError, match=expected), writing(tmp_path, "make room"):
        tmp_path.open("w")
    with pytest.raises(ValueError, match="other"), writing(tmp_path, "make room"):
        raise ValueError("other")
