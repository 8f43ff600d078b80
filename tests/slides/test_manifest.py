import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from midnight.errors import MidnightError
from midnight.slides.manifest import (
    Slide,
    read_gdc_manifest,
    read_header,
    read_manifest,
    write_manifest,
)

MD5 = "0123456789abcdef0123456789abcdef"


def slide(number: int, **values: object) -> Slide:
    row = {"slide_id": f"s{number:03d}", "source": "gdc", "file_id": f"id-{number}", "file_name": f"s{number}.svs"}
    return Slide(**(row | {"size": 10 + number, "md5": MD5} | values))  # type: ignore[arg-type]


def test_round_trip_is_sorted_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "manifest.tsv"
    slides = [slide(2, extra={"sample_type": 'Primary "Tumor" #1', "n": 1.5}), slide(1)]
    write_manifest(path, slides, {"query": "two\nlines"})
    assert read_manifest(path) == slides[::-1]
    assert read_header(path) == {"query": "two lines", "count": "2", "bytes": "23"}
    packed = tmp_path / "manifest.tsv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_manifest(packed) == slides[::-1]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("\tgdc\t", "\tftp\t", "column source: 'ftp'"),
        ("\t11\t", "\t-11\t", "column size: '-11'"),
        ("\t11\t", "\t0\t", "column size"),
        (MD5, "xyz", "column md5: 'xyz'"),
        (MD5, "", "column md5"),
        ("\tid-1\t", "\t../../x\t", "column file_id"),
        ("\ts1.svs\t", "\t../s1.svs\t", "column file_name"),
        ("\ts1.svs\t", "\t$(id).svs\t", "column file_name"),
        ("s001\t", "a/b\t", "column slide_id: 'a/b'"),
        ("\t{}", "\t[]", "column extra"),
        ("\t{}", '\t{"mpp": NaN}', "column extra"),
        ("\t{}", '\t{"mpp": -1}', "column extra"),
        ("\tgdc\t", "\t", "8 columns instead of 9"),
    ],
)
def test_errors_name_file_line_and_column(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "manifest.tsv"
    write_manifest(path, [slide(1)], {"query": "q"})
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(MidnightError) as caught:
        read_manifest(path)
    assert says in str(caught.value)
    assert f"{path}, line 5" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "manifest.tsv"
    with pytest.raises(MidnightError, match=r"manifest\.tsv: can't be read"):
        read_manifest(path)
    path.write_text("")
    with pytest.raises(MidnightError, match="empty"):
        read_manifest(path)
    path.write_text("a\tb\n1\t2\n")
    with pytest.raises(MidnightError, match="columns are a, b"):
        read_manifest(path)
    (tmp_path / "cut.tsv.gz").write_bytes(gzip.compress(b"x\ty\n" * 9999)[:40])
    with pytest.raises(MidnightError, match=r"cut\.tsv\.gz: can't be read"):
        read_manifest(tmp_path / "cut.tsv.gz")


def test_write_refuses_what_read_would(tmp_path: Path) -> None:
    path = tmp_path / "manifest.tsv"
    for bad in (slide(1, size=-1), slide(1, file_id=".."), slide(1, source="local", md5="")):
        with pytest.raises(MidnightError):
            write_manifest(path, [bad], {})
    with pytest.raises(MidnightError, match="twice"):
        write_manifest(path, [slide(1), slide(1, file_id="other")], {})
    assert not path.exists()


def test_gdc_manifest_leaves_out_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "gdc.txt"
    rows = [
        f"u-1\tTCGA-22-1017-01Z.svs\t{MD5.upper()}\t12\treleased",
        f"u-2\t../evil.svs\t{MD5}\t12\treleased",
        f"../u\tfine.svs\t{MD5}\t12\treleased",
        "u-4\tno-md5.svs\t\t12\treleased",
        f"u-5\tempty.svs\t{MD5}\t0\treleased",
        f"u-6\tAA.svs\t{MD5}\t5\treleased",
        f"u-6\tAA.svs\t{MD5}\t5\treleased",
    ]
    path.write_text("\r\n".join(["id\tfilename\tmd5\tsize\tstate", *rows]) + "\r\n")
    slides = read_gdc_manifest(path)
    assert [(item.slide_id, item.case_id, item.md5) for item in slides] == [
        ("AA", "", MD5),
        ("TCGA-22-1017-01Z", "TCGA-22-1017", MD5),
    ]


def test_imports_nothing_heavy() -> None:
    code = "import sys, midnight.slides.manifest, midnight.slides.pin, midnight.slides.sharding; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"requests", "pandas", "numpy", "jsonschema", "openslide", "torch"} & set(loaded)
