import json
import shutil
import tarfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from midnight.cli import main
from midnight.config import Draw, Predrawn
from midnight.errors import MidnightError
from midnight.tiles.predrawn import plan
from midnight.tiles.predrawn.draw import draw_job
from midnight.tiles.predrawn.tars import tar_path
from midnight.tiles.predrawn.tileset import TileSet

Indexes = dict[str, Path]
Usage = namedtuple("Usage", "total used free")


def test_the_estimate_is_what_is_written(drawn: Path) -> None:
    known = json.loads((drawn / "plan.json").read_text())
    assert (known["tiles"], known["shards"], known["jobs"], known["slides"]) == (50, 7, 3, 2)
    written = 0
    for path in (drawn / "shards").glob("*.tar"):
        with tarfile.open(path) as tar:
            last = tar.getmembers()[-1]
            written += last.offset_data + -(-last.size // 512) * 512
    assert known["bytes_per_tile"] * 50 == pytest.approx(written, rel=0.1)
    assert known["seconds_per_tile"] > 0


def test_the_plan_reads_like_one(tile_set: TileSet, indexes: Indexes, tmp_path: Path) -> None:
    large = replace(tile_set, tiles=replace(tile_set.tiles, predrawn=Predrawn(count=2_000_000)), per_shard=10_000)
    found = plan.measure(large, indexes, Draw(), sample=20)
    text = plan.describe(found, large, tmp_path / "not" / "there", cores=16)
    assert "2,000,000 of 64 px as JPEG of quality 90, from 2 slides of demo" in text
    assert "200 shards" in text
    assert "hours on 16 cores; 2 jobs of" in text
    assert found.core_hours == pytest.approx(2_000_000 * found.seconds_per_tile / 3600)


def test_a_full_disk_is_found_before_drawing(
    drawn: Path, tile_set: TileSet, indexes: Indexes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, 9000))
    with pytest.raises(MidnightError, match=r"50 tiles are still to be drawn and take [\d.]+ kB, but only 9\.0 kB"):
        plan.write_plan(tile_set, indexes, Draw(), tmp_path / "plan.json")
    assert not (tmp_path / "plan.json").exists()
    shutil.copy(drawn / "plan.json", tmp_path)
    job = (tile_set, indexes, tmp_path, [0], 1, tmp_path / "plan.json", tmp_path / "part.parquet")
    with pytest.raises(MidnightError, match="50 tiles are still to be drawn"):
        draw_job(*job)
    assert not (tmp_path / "shards").exists()


def test_only_what_is_left_needs_room(drawn: Path, tile_set: TileSet, tmp_path: Path) -> None:
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    plan.require_space(tile_set, tmp_path, 1e15)
    tar_path(tmp_path, 6).unlink()
    with pytest.raises(MidnightError, match="2 tiles are still to be drawn"):
        plan.require_space(tile_set, tmp_path, 1e15)


def test_a_damaged_plan_is_named(tile_set: TileSet, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(MidnightError, match=r"plan\.json: not a readable plan"):
        plan.check_space(tile_set, tmp_path, tmp_path / "plan.json")


@pytest.mark.parametrize(("size", "text"), [(2e12, "2.0 TB"), (1.5e9, "1.5 GB"), (2e6, "2.0 MB"), (900, "0.9 kB")])
def test_sizes_are_readable(size: float, text: str) -> None:
    assert plan.human(size) == text


def test_the_command_line_prints_the_plan_of_a_run(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tissue" / "local"
    folder.mkdir(parents=True)
    shutil.copy(index, folder / "index.parquet")
    tiles = {"size": 64, "mpps": [1.0], "predrawn": {"count": 5_000_000}}
    run = {"recipe": "tcga-100M", "cohorts": {"local": 1}, "override": {"tiles": tiles}}
    config = {"cohorts": {"local": {"source": "gdc"}}, "runs": {"mine": run}, "results_dir": str(tmp_path)}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    options = ["--configfile", str(tmp_path / "config.yaml"), "--sample", "10", "--cores", "3"]
    main(["tiles", "plan", "--recipe", "mine", *options])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["tiles", "sample", "disk", "time"]
    assert "5,000,000 of 64 px as JPEG of quality 90, from 2 slides of local" in lines[0]
    assert "500 shards" in lines[2]
    assert "hours on 3 cores; 5 jobs" in lines[3]
