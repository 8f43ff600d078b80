import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from midnight.errors import MidnightError
from midnight.hashing import hash_file
from midnight.tissue.index import (
    STAMPS,
    TissueRecord,
    index_identity,
    join_shards,
    read_index,
    training_slides,
    write_records,
)
from tests.tissue.small_slides import make_record


def shards(folder: Path, counts: list[int]) -> list[Path]:
    rng = np.random.default_rng(0)
    paths, number = [], sum(counts)
    for shard, count in enumerate(counts):
        records = []
        for _ in range(count):
            number -= 1
            records.append(make_record(rng.random((30 + number, 50)) < 0.3, f"slide-{number:03d}"))
        paths.append(folder / f"{shard:04d}.parquet")
        write_records(records, paths[-1])
    return paths


def test_joining_keeps_every_slide_and_its_mask_in_order(tmp_path: Path) -> None:
    paths = shards(tmp_path, [20, 0, 17])
    join_shards(paths, tmp_path / "index.parquet")
    joined = read_index(tmp_path / "index.parquet")
    assert [record.slide_id for record in joined] == [f"slide-{number:03d}" for number in range(37)]
    before = {record.slide_id: record for path in paths for record in read_index(path)}
    for record in joined:
        assert np.array_equal(record.mask(), before[record.slide_id].mask())
        assert record.level_widths == before[record.slide_id].level_widths


def test_masks_are_read_on_demand_only(tmp_path: Path) -> None:
    join_shards(shards(tmp_path, [3]), tmp_path / "index.parquet")
    record = read_index(tmp_path / "index.parquet")[0]
    assert record.packed == b""
    (tmp_path / "index.parquet").unlink()
    with pytest.raises(MidnightError, match=r"index\.parquet: can't be read any more"):
        record.mask()


def test_a_slide_in_two_shards_is_refused(tmp_path: Path) -> None:
    path = shards(tmp_path, [1])[0]
    with pytest.raises(MidnightError, match="more than one shard: slide-000"):
        join_shards([path, path], tmp_path / "index.parquet")


def test_training_needs_a_usable_slide_but_the_index_does_not(tmp_path: Path) -> None:
    bad = [TissueRecord(f"bad-{i}", "", status="quarantined", reason="no tissue found") for i in range(2)]
    write_records(bad, tmp_path / "0000.parquet")
    join_shards([tmp_path / "0000.parquet"], tmp_path / "index.parquet")
    assert len(read_index(tmp_path / "index.parquet")) == 2
    with pytest.raises(MidnightError, match=r"no slide to train on: 2 quarantined \(no tissue found\)"):
        training_slides(tmp_path / "index.parquet")
    join_shards([], tmp_path / "none.parquet")
    with pytest.raises(MidnightError, match="it is empty"):
        training_slides(tmp_path / "none.parquet")


@pytest.mark.parametrize("content", [None, b"", b"something else"])
def test_what_is_no_index_gets_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "index.parquet").write_bytes(content)
    with pytest.raises(MidnightError, match=r"index\.parquet: not a readable tissue index") as caught:
        read_index(tmp_path / "index.parquet")
    assert "\n" not in str(caught.value)


def test_a_quarantined_slide_has_no_mask() -> None:
    with pytest.raises(MidnightError, match="slide bad: no tissue mask"):
        TissueRecord("bad", "", status="quarantined").mask()


def test_an_index_of_an_older_version_is_read_and_its_files_not_compared(tmp_path: Path) -> None:
    join_shards(shards(tmp_path, [3]), tmp_path / "index.parquet")
    before = read_index(tmp_path / "index.parquet")
    table = pq.read_table(tmp_path / "index.parquet").drop_columns(list(STAMPS))
    pq.write_table(table.replace_schema_metadata({}), tmp_path / "index.parquet")
    after = read_index(tmp_path / "index.parquet")
    assert after == before
    assert {(record.file_size, record.modified) for record in after} == {(0, 0)}
    assert index_identity(tmp_path / "index.parquet") == hash_file(tmp_path / "index.parquet")[:16]
    join_shards([tmp_path / "index.parquet"], tmp_path / "joined.parquet")
    assert [record.slide_id for record in read_index(tmp_path / "joined.parquet")] == [r.slide_id for r in before]


def identity_of(folder: Path, record: TissueRecord, *others: TissueRecord) -> str:
    write_records([record, *others], folder / "0000.parquet")
    join_shards([folder / "0000.parquet"], folder / "index.parquet")
    return index_identity(folder / "index.parquet")


def test_the_identity_of_an_index_is_what_its_tiles_depend_on(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((30, 50)) < 0.3
    record = replace(make_record(mask), jpeg=b"picture", file_size=5, modified=1_700_000_000)
    before = identity_of(tmp_path, record)
    bad = TissueRecord("bad", "", status="quarantined", reason="no tissue found")
    assert identity_of(tmp_path, replace(record, path="moved.svs", modified=1_700_000_100, file_size=6)) == before
    assert identity_of(tmp_path, record, bad) == before
    assert identity_of(tmp_path, replace(record, mpp=0.25)) != before
    assert identity_of(tmp_path, replace(record, jpeg=b"another")) != before
    assert identity_of(tmp_path, replace(record, packed=make_record(~mask).packed)) != before
    assert identity_of(tmp_path, record, make_record(mask, "second")) != before


def test_a_file_is_known_again_by_its_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "s.svs"
    path.write_bytes(b"x" * 10)
    os.utime(path, ns=(0, 1_700_000_000_900_000_000))
    record = TissueRecord("s", str(path)).stamped(with_time=True)
    assert (record.file_size, record.modified) == (10, 1_700_000_000)
    os.utime(path, ns=(0, 1_700_000_000_000_000_000))
    assert record.unchanged(), "file systems keep different parts of a second"
    os.utime(path, (0, 1_700_000_001))
    assert not record.unchanged()
    assert TissueRecord("s", str(path)).stamped(with_time=False).unchanged()
    path.write_bytes(b"x" * 11)
    assert not replace(record, modified=0).unchanged()
    with path.open("rb") as file:
        assert not record.unchanged(file.fileno())
    path.unlink()
    assert record.unchanged(), "reading it will say what is wrong"
