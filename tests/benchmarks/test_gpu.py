"""The benchmark for GPUs runs where there is none, with tiny models: every stage, and a failing one hides no other."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.scripts import load_script


def test_quick_stages_write_rows_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = load_script("gpu", monkeypatch)

    def failing(small: bool) -> gpu.Rows:
        yield {"before": small}
        raise ValueError("no memory")

    monkeypatch.setitem(gpu.STAGES, "tuning", failing)
    log, page = tmp_path / "log.jsonl", tmp_path / "page.md"
    stages = "environment,tuning,attention,speed,waits,run"
    assert gpu.main(["--quick", "--stages", stages, "--log", str(log), "--out", str(page)]) == 1
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert {row["stage"] for row in rows} == set(stages.split(","))
    assert {"stage": "tuning", "before": True} in rows
    assert [row["error"] for row in rows if "error" in row] == ["ValueError: no memory"]
    ways = {(row["arch"], row["batch"], row["way"]) for row in rows if row["stage"] == "speed" and "ms" in row}
    assert len(ways) == 6 and {batch for _, batch, _ in ways} == {12, 48, 64}
    ends = {row["run"]: row["loss"] for row in rows if row["stage"] == "run" and "loss" in row}
    assert ends["whole"] == ends["resumed"]  # on a CPU to the bit
    assert "| vit_base_patch14_reg4_dinov2 | 64 | fused |" in page.read_text()


def test_an_unknown_stage_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load_script("gpu", monkeypatch).main(["--quick", "--stages", "speeed"])
    assert "no such stage: speeed" in capsys.readouterr().err


def test_ways_that_differ_have_differing_names(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = load_script("gpu", monkeypatch)
    assert str(gpu.Way()) == "fused"
    plain = gpu.Way("plain", checkpointing=True, precision="float8", targets="dense", update="torch")
    assert str(plain) == "plain, float8, checkpointing, dense, torch"
