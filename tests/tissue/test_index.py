from pathlib import Path

import numpy as np
import pytest

from midnight.errors import MidnightError
from midnight.tissue.index import TissueRecord, join_shards, read_index, training_slides, write_records
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
