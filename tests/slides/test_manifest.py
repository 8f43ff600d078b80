import gzip
import subprocess
import sys
import time
from pathlib import Path

import pytest

from midnight.errors import MidnightError
from midnight.slides.manifest import (
    Slide,
    count_slides,
    read_gdc_manifest,
    read_header,
    read_manifest,
    shard_digest,
    shard_names,
    shard_slides,
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
    assert count_slides(path) == 2
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


def test_shards_cover_every_slide_once() -> None:
    slides = [slide(number) for number in range(130)]
    names = shard_names(len(slides), 64)
    assert names == ["0000", "0001", "0002"]
    assert [item for name in names for item in shard_slides(slides, name, 64)] == slides
    assert shard_names(0, 64) == []
    assert len(shard_names(128, 64)) == 2
    for wrong in ("0003", "3", "-001", "x"):
        with pytest.raises(MidnightError, match="no shard"):
            shard_slides(slides, wrong, 64)
    with pytest.raises(MidnightError, match="shard_size"):
        shard_names(3, 0)


def test_digest_follows_the_shards_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "manifest.tsv"
    slides = [slide(number) for number in range(10)]
    write_manifest(path, slides, {"date": "monday"})
    before = [shard_digest(path, name, 4) for name in shard_names(10, 4)]
    assert before == [shard_digest(slides, name, 4) for name in shard_names(10, 4)]
    assert len(set(before)) == 3
    slides[5] = slide(5, size=999)
    write_manifest(path, slides, {"date": "tuesday, later"})
    after = [shard_digest(path, name, 4) for name in shard_names(10, 4)]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]


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
    assert count_slides(path) == 2


def test_real_manifest_in_184_shards(shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "data" / "tcga" / "gdc_manifest_tcga_dx_2024-08.tsv.gz"
    if not source.is_file():
        pytest.skip("no pinned GDC manifest in ../shared/data/tcga")
    slides = read_gdc_manifest(source)
    path = tmp_path / "manifest.tsv"
    write_manifest(path, slides, {})
    assert len(slides) == count_slides(path) == count_slides(source) == 11_765
    assert sum(item.size for item in slides) == 12_949_031_283_023
    assert all(item.case_id.startswith("TCGA-") and not item.project_id for item in slides)
    names = shard_names(len(slides), 64)
    assert len(names) == 184
    start = time.process_time()
    assert len({shard_digest(path, name, 64) for name in names}) == 184
    assert time.process_time() - start < 1


def test_imports_nothing_heavy() -> None:
    code = "import sys, midnight.slides.manifest, midnight.slides.pin; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"requests", "pandas", "numpy", "jsonschema", "openslide", "torch"} & set(loaded)
