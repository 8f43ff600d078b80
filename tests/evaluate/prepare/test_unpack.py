import gzip
import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from midnight.errors import MidnightError
from midnight.evaluate.prepare.unpack import BadArchiveError, unpack

LINK = stat.S_IFLNK | 0o777


def make_zip(path: Path, members: list[tuple[str, int]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            file.writestr(info, "/etc/passwd" if stat.S_ISLNK(mode) else b"content" * 100)
    return path


def make_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            content = b"content" * 100 if kind == tarfile.REGTYPE else b""
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_is_sound_is_unpacked(tmp_path: Path) -> None:
    members = ["a/1.png", "a b/ü.png", "__MACOSX/a/1.png"]
    unpack(
        make_zip(tmp_path / "x.zip", [("a/", stat.S_IFDIR | 0o755), *((name, 0o100600) for name in members)]),
        tmp_path / "z",
    )
    unpack(
        make_tar(tmp_path / "x.tar.gz", [("a", tarfile.DIRTYPE), *((name, tarfile.REGTYPE) for name in members)]),
        tmp_path / "t",
    )
    (tmp_path / "x.h5.gz").write_bytes(gzip.compress(b"content"))
    unpack(tmp_path / "x.h5.gz", tmp_path / "g")
    assert files(tmp_path / "z") == files(tmp_path / "t") == ["a b/ü.png", "a/1.png"]
    assert (tmp_path / "z/a/1.png").read_bytes() == (tmp_path / "t/a/1.png").read_bytes() == b"content" * 100
    assert (tmp_path / "g/x.h5").read_bytes() == b"content"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/midnight-x", "..\\x", "a\\..\\x"])
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_nothing_leaves_the_folder(tmp_path: Path, name: str, kind: str) -> None:
    archive = tmp_path / "in" / f"x.{kind}"
    archive.parent.mkdir()
    if kind == "zip":
        make_zip(archive, [("good.png", 0o100644), (name, 0o100644)])
    else:
        make_tar(archive, [("good.png", tarfile.REGTYPE), (name, tarfile.REGTYPE)])
    with pytest.raises(BadArchiveError, match="would leave the folder") as caught:
        unpack(archive, tmp_path / "in" / "out")
    assert str(archive) in str(caught.value) and repr(name) in str(caught.value)
    assert files(tmp_path) == [f"in/x.{kind}"]
    assert not Path("/midnight-x").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(BadArchiveError, match="'b' is a link or special file"):
        unpack(make_tar(tmp_path / "x.tar.gz", [("a", tarfile.REGTYPE), ("b", kind)]), tmp_path / "out")
    assert files(tmp_path) == ["x.tar.gz"]


def test_links_in_zip_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArchiveError, match="'b' is a link or special file"):
        unpack(make_zip(tmp_path / "x.zip", [("a", 0o100644), ("b", LINK)]), tmp_path / "out")
    assert files(tmp_path) == ["x.zip"]


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "h5.gz"])
@pytest.mark.parametrize("harm", ["cut", "flip", "text"])
def test_damage_is_one_line_and_leaves_nothing(tmp_path: Path, kind: str, harm: str) -> None:
    archive = tmp_path / f"x.{kind}"
    noise = random.Random(0).randbytes(20_000)
    (tmp_path / "noise").write_bytes(noise)
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.write(tmp_path / "noise", "noise")
    elif kind == "tar.gz":
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(tmp_path / "noise", "noise")
    else:
        archive.write_bytes(gzip.compress(noise))
    content = bytearray(archive.read_bytes())
    content[10_000] ^= 255
    archive.write_bytes({"cut": archive.read_bytes()[:12_000], "flip": bytes(content), "text": b"<html>" * 99}[harm])
    with pytest.raises(BadArchiveError, match="damaged") as caught:
        unpack(archive, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_two_members_of_one_name_are_an_error(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "x.tar.gz", [("a", tarfile.REGTYPE), ("a", tarfile.REGTYPE)])
    with pytest.raises(MidnightError):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
