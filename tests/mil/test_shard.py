"""The workflow's shards: slides whose tissue is known."""

import logging
from pathlib import Path

import pytest

from midnight.config import Evaluation, Features, Tissue
from midnight.errors import MidnightError
from midnight.mil.command import embed_shard, find_weights, make_job
from midnight.mil.job import FeatureJob
from midnight.mil.ledger import read_table
from tests.tissue.small_slides import make_index


@pytest.fixture
def job(model: Path) -> FeatureJob:
    features = Features(mpp=0.5, size=56)
    evaluation = Evaluation(batch_size=8, workers=1, accelerator="cpu")
    return make_job(find_weights(str(model), 56), None, features, Tissue(), evaluation)


def test_what_can_not_be_used_is_a_row_and_a_line_of_the_log(
    slides: Path, tmp_path: Path, job: FeatureJob, caplog: pytest.LogCaptureFixture
) -> None:
    index = make_index(tmp_path, sorted(slides.glob("*.svs")))
    with caplog.at_level(logging.WARNING):
        embed_shard(index, job, tmp_path / "out" / "0000.tsv")
    rows = {row.slide_id: row for row in read_table(tmp_path / "out" / "0000.tsv")}
    assert {name for name, row in rows.items() if row.status == "ok"} == {"fine", "half"}
    assert {path.stem for path in (tmp_path / "out" / "h5_files").iterdir()} == {"fine", "half"}
    assert "slide glass has no features: no tissue found" in caplog.text


def test_a_slide_that_changed_since_its_mask_was_made_is_left_out(
    slides: Path, tmp_path: Path, job: FeatureJob
) -> None:
    index = make_index(tmp_path, [slides / "fine.svs", slides / "half.svs"])
    with (slides / "half.svs").open("ab") as file:
        file.write(b"more")
    embed_shard(index, job, tmp_path / "out" / "0000.tsv")
    rows = {row.slide_id: row for row in read_table(tmp_path / "out" / "0000.tsv")}
    assert rows["fine"].status == "ok"
    assert rows["half"].status == "failed" and "changed since its mask was made" in rows["half"].reason


def test_a_shard_of_which_nothing_can_be_embedded_has_failed(slides: Path, tmp_path: Path, job: FeatureJob) -> None:
    index = make_index(tmp_path, [slides / "half.svs"])
    (slides / "half.svs").unlink()
    with pytest.raises(MidnightError, match=r"1 of 1 have no features: half: no such file"):
        embed_shard(index, job, tmp_path / "out" / "0000.tsv")


def test_a_shard_without_any_tissue_is_no_failure(slides: Path, tmp_path: Path, job: FeatureJob) -> None:
    index = make_index(tmp_path, [slides / "glass.svs", slides / "page.svs"])
    embed_shard(index, job, tmp_path / "out" / "0000.tsv")
    assert {row.status for row in read_table(tmp_path / "out" / "0000.tsv")} == {"failed"}


def test_other_settings_make_the_workflows_files_anew(
    slides: Path, tmp_path: Path, job: FeatureJob, model: Path
) -> None:
    index = make_index(tmp_path, [slides / "half.svs"])
    table = tmp_path / "out" / "0000.tsv"
    embed_shard(index, job, table)
    before = read_table(table)
    stamp = (tmp_path / "out" / "h5_files" / "half.h5").stat().st_mtime_ns
    embed_shard(index, job, table)
    assert read_table(table) == before
    assert (tmp_path / "out" / "h5_files" / "half.h5").stat().st_mtime_ns == stamp
    finer = Features(mpp=0.5, size=56, overlap=28)
    evaluation = Evaluation(workers=1, accelerator="cpu")
    embed_shard(index, make_job(find_weights(str(model), 56), None, finer, Tissue(), evaluation), table)
    assert read_table(table)[0].tiles > 2 * before[0].tiles
