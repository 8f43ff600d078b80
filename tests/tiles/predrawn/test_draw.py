import json
import os
import shutil
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest

from midnight.config import Draw
from midnight.errors import MidnightError
from midnight.tiles.draw.lost_slides import read_quarantine
from midnight.tiles.predrawn import draw
from midnight.tiles.predrawn.codec import decode
from midnight.tiles.predrawn.draw import draw_job
from midnight.tiles.predrawn.plan import write_plan
from midnight.tiles.predrawn.sampling import open_drawer
from midnight.tiles.predrawn.tars import read_rows, table_path, tar_path
from midnight.tiles.predrawn.tileset import TileSet
from midnight.tissue.index import training_slides
from tests.tiles.predrawn.conftest import COUNT, PER_SHARD
from tests.tissue.small_slides import make_index

Indexes = dict[str, Path]


def test_a_shard_is_a_webdataset(drawn: Path) -> None:
    """Members of a sample follow each other, share their name up to the first dot, and come in rising order."""
    with tarfile.open(tar_path(drawn, 1)) as tar:
        members = tar.getmembers()
        names = [member.name for member in members]
        assert names == [f"{n:09d}.{kind}" for n in range(PER_SHARD, 2 * PER_SHARD) for kind in ("png", "json")]
        assert all(member.isfile() for member in members)
        label = json.load(tar.extractfile(members[1]))
    assert label.keys() == {"slide", "cohort", "mpp", "x", "y"}
    assert label["slide"] in ("large", "small")
    assert label["cohort"] == "demo"


def test_offsets_lead_to_the_images(drawn: Path, tile_set: TileSet, indexes: Indexes) -> None:
    rows = read_rows(table_path(drawn, 2), tile_set.key(indexes)).to_pylist()
    data = tar_path(drawn, 2).read_bytes()
    with tarfile.open(tar_path(drawn, 2)) as tar:
        for row in rows:
            member = tar.getmember(f"{row['sample']:09d}.png")
            assert (row["offset"], row["bytes"]) == (member.offset_data, member.size)
            assert decode(data[row["offset"] : row["offset"] + row["bytes"]]).shape == (64, 64, 3)


def test_tiles_are_those_of_the_online_stream(drawn: Path, tile_set: TileSet, indexes: Indexes) -> None:
    rows = read_rows(drawn / "parts" / "0001.parquet", tile_set.key(indexes)).to_pylist()
    with open_drawer(tile_set, indexes) as drawer:
        for row in rows[::5]:
            tile = drawer.draw(row["sample"])
            assert {name: row[name] for name in ("slide", "mpp", "x", "y")} == {
                name: getattr(tile, name) for name in ("slide", "mpp", "x", "y")
            }
            with tar_path(drawn, row["shard"]).open("rb") as file:
                file.seek(row["offset"])
                assert np.array_equal(decode(file.read(row["bytes"])), tile.pixels)


def test_a_killed_job_goes_on_after_its_last_whole_shard(
    drawn: Path, tile_set: TileSet, indexes: Indexes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(drawn / "plan.json", tmp_path)
    job = (tile_set, indexes, tmp_path, [0, 1, 2], 1, tmp_path / "plan.json", tmp_path / "part.parquet")
    seen = []

    def killed(drawer: object, samples: range) -> object:
        for item in draw_samples(drawer, samples):
            seen.append(item[0])
            if len(seen) == PER_SHARD + 3:
                raise KeyboardInterrupt
            yield item

    draw_samples = draw.draw_samples
    monkeypatch.setattr(draw, "draw_samples", killed)
    with pytest.raises(KeyboardInterrupt):
        draw_job(*job)
    assert [path.name for path in sorted((tmp_path / "shards").iterdir())] == ["00000.parquet", "00000.tar"]
    (tmp_path / "shards" / ".00001.left.tar").write_bytes(b"as a SIGKILL leaves it")
    seen.clear()
    monkeypatch.setattr(draw, "draw_samples", lambda *call: (seen.append(t[0]) or t for t in draw_samples(*call)))
    draw_job(*job)
    assert seen == list(range(PER_SHARD, 3 * PER_SHARD))
    for shard in range(3):
        assert tar_path(tmp_path, shard).read_bytes() == tar_path(drawn, shard).read_bytes()
    assert (tmp_path / "part.parquet").read_bytes() == (drawn / "parts" / "0000.parquet").read_bytes()
    assert not list((tmp_path / "shards").glob(".*"))


def test_damaged_and_foreign_shards_are_drawn_again(
    drawn: Path, tile_set: TileSet, indexes: Indexes, tmp_path: Path
) -> None:
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    good = [tar_path(drawn, shard).read_bytes() for shard in range(4)]
    tar_path(tmp_path, 0).write_bytes(good[0][:5000])
    tar_path(tmp_path, 1).unlink()
    table_path(tmp_path, 2).write_bytes(b"PAR1")
    shutil.copy(table_path(tmp_path, 4), table_path(tmp_path, 3))
    draw_job(tile_set, indexes, tmp_path, range(4), 1, tmp_path / "plan.json", tmp_path / "part.parquet")
    assert [tar_path(tmp_path, shard).read_bytes() for shard in range(4)] == good


def test_the_number_of_processes_does_not_matter(
    drawn: Path, tile_set: TileSet, indexes: Indexes, tmp_path: Path
) -> None:
    shutil.copy(drawn / "plan.json", tmp_path)
    shards = range(tile_set.shards)
    draw_job(tile_set, indexes, tmp_path, shards, 2, tmp_path / "plan.json", tmp_path / "part.parquet")
    for shard in shards:
        assert tar_path(tmp_path, shard).read_bytes() == tar_path(drawn, shard).read_bytes()
    assert read_rows(tmp_path / "part.parquet", tile_set.key(indexes)).num_rows == COUNT


def test_tables_of_other_tiles_are_refused(drawn: Path) -> None:
    with pytest.raises(MidnightError, match=r"00000\.parquet: its tiles are of other slides or settings"):
        read_rows(table_path(drawn, 0), "another key")
    with pytest.raises(MidnightError, match="not a readable table of tiles"):
        read_rows(drawn / "plan.json", "key")


def test_a_slide_that_vanished_is_left_out_and_recorded(tile_set: TileSet, index: Path, tmp_path: Path) -> None:
    paths = [Path(shutil.copy(record.path, tmp_path)) for record in training_slides(index)]
    indexes = {"demo": make_index(tmp_path, paths)}
    paths[0].unlink()
    write_plan(tile_set, indexes, Draw(), tmp_path / "set" / "plan.json")
    folder, part = tmp_path / "set", tmp_path / "part.parquet"
    draw_job(tile_set, indexes, folder, [0, 1], 1, folder / "plan.json", part)
    assert set(read_rows(part, tile_set.key(indexes))["slide"].to_pylist()) == {1}
    assert [lost.slide_id for lost in read_quarantine(folder / "quarantined.tsv")] == [paths[0].stem]


def test_a_killed_process_is_one_clear_error(
    drawn: Path, tile_set: TileSet, indexes: Indexes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(drawn / "plan.json", tmp_path)
    monkeypatch.setattr(draw, "_draw_shards", kill_yourself)
    with pytest.raises(MidnightError, match=r"a drawing process was killed.*: lower draw\.workers"):
        draw_job(tile_set, indexes, tmp_path, [0, 1], 2, tmp_path / "plan.json", tmp_path / "part.parquet")


def kill_yourself(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
