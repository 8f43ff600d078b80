import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from midnight.errors import MidnightError
from midnight.tissue.index import TissueRecord, join_shards, read_index, write_records
from midnight.tissue.mask import pack
from midnight.tissue.maskfile import MaskFile, masks_path, open_masks
from tests.tissue.small_slides import make_record


def records(count: int, seed: int = 0) -> list[TissueRecord]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 120, (count, 2))
    return [make_record(rng.random(size) < 0.3, f"s{number:03d}") for number, size in enumerate(sizes)]


def make_index(folder: Path, count: int = 20, seed: int = 0) -> Path:
    bad = TissueRecord("s-bad", "", status="quarantined", reason="x")
    write_records([*records(count, seed), bad], folder / "0000.parquet")
    join_shards([folder / "0000.parquet"], folder / "index.parquet")
    return folder / "index.parquet"


def all_right(masks: MaskFile, index: Path) -> bool:
    return all(
        np.array_equal(masks.get(record.row, record.mask_width, record.mask_height).unpack(), record.mask())
        for record in read_index(index)
        if record.ok
    )


def test_the_tissue_stage_writes_all_masks(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    assert masks_path(index).exists()
    assert all_right(open_masks(index), index)


def test_it_is_opened_and_not_written_again(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    before = masks_path(index).stat().st_mtime_ns
    open_masks(index)
    assert masks_path(index).stat().st_mtime_ns == before


def test_an_index_of_an_older_version_gets_its_masks(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    masks_path(index).unlink()
    pq.write_table(pq.read_table(index).replace_schema_metadata(None), index, row_group_size=16)
    assert all_right(open_masks(index), index)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("damage", ["other", "cut", "empty"])
def test_masks_of_another_index_or_damaged_ones_are_written_anew(tmp_path: Path, damage: str) -> None:
    index = make_index(tmp_path)
    (tmp_path / "other").mkdir()
    # The same slides of the same sizes, of which one has one more pixel of tissue.
    changed = [replace(record) for record in records(20)]
    mask = changed[3].mask().copy()
    mask[0, 0] ^= True
    changed[3] = replace(changed[3], packed=pack(mask))
    write_records(changed, tmp_path / "other" / "index.parquet")
    other = masks_path(open_masks(tmp_path / "other" / "index.parquet").index).read_bytes()
    masks_path(index).write_bytes({"other": other, "cut": masks_path(index).read_bytes()[:-9], "empty": b""}[damage])
    assert all_right(open_masks(index), index)


def test_another_process_opens_it_for_itself(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    assert all_right(pickle.loads(pickle.dumps(open_masks(index))), index)  # noqa: S301


def test_a_slide_costs_only_its_own_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a draw costs does not grow with the slides of the index: no other slide's bytes are touched."""
    index = make_index(tmp_path, 200)
    masks, slides = open_masks(index), [record for record in read_index(index) if record.ok]
    seen: list[int] = []
    pread = os.pread

    def spy(file: int, size: int, start: int) -> bytes:
        seen.append(size)
        return pread(file, size, start)

    monkeypatch.setattr(os, "pread", spy)
    for record in (slides[7], slides[150]):
        mask = masks.get(record.row, record.mask_width, record.mask_height)
        assert seen == [mask.codes.nbytes]
        assert mask.read(1, 2).shape == (2, 32)
        assert seen == [mask.codes.nbytes, 2 * 128]
        seen.clear()


def test_what_cannot_be_had_gets_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MidnightError, match=r"none\.parquet: can't be read"):
        open_masks(tmp_path / "none.parquet")
    (tmp_path / "index.parquet").write_bytes(b"something else")
    with pytest.raises(MidnightError, match=r"index\.parquet: not a readable tissue index"):
        open_masks(tmp_path / "index.parquet")
    index = make_index(tmp_path)
    masks, bad = open_masks(index), next(record for record in read_index(index) if not record.ok)
    with pytest.raises(MidnightError, match=f"no mask of 5 × 5 px in row {bad.row}"):
        masks.get(bad.row, 5, 5)
    os.truncate(masks_path(index), 2000)
    last = read_index(index)[-1]
    with pytest.raises(MidnightError, match="cut off; delete it"):
        masks.get(last.row, last.mask_width, last.mask_height).whole()
    masks_path(index).unlink()

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("midnight.atomic.tempfile.mkstemp", refuse)
    with pytest.raises(MidnightError, match=r"can't be written .*run the rule join_tissue again"):
        open_masks(index)
