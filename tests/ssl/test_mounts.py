import os
from pathlib import Path

import pytest

from midnight.ssl.mounts import mount_of, state_of

TABLE = """\
overlay / overlay rw,relatime 0 0
server:/export /data nfs4 rw,hard 0 0
/dev/sdb1 /data/my\\040slides ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/a.svs", " (mount /data, nfs4 of server:/export)"),
        ("/data/my slides/a.svs", " (mount /data/my slides, ext4 of /dev/sdb1)"),
        ("/database/a.svs", " (mount /, overlay of overlay)"),
    ],
)
def test_a_path_lies_on_its_innermost_mount(path: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text(TABLE)
    assert mount_of(path, tmp_path / "mounts") == expected


def test_where_the_system_does_not_tell_nothing_is_said(tmp_path: Path) -> None:
    assert mount_of("/data/a.svs", tmp_path / "none") == ""
    assert state_of(os.getpid()) == "running"
    assert state_of(None) == "of unknown state"
