"""What a person reads while real Snakemake runs, without a terminal as in CI and under Slurm."""

import re
from pathlib import Path

import pytest

from tests.workflow.harness import make_workflow

pytestmark = pytest.mark.workflow
INDEX = "results/tissue/demo/index.parquet"


def test_one_line_per_event_and_a_summary(tmp_path: Path) -> None:
    workflow = make_workflow(tmp_path, {})
    result = workflow.run(INDEX)
    assert result.returncode == 0, result.stderr
    lines = result.stderr.splitlines()
    assert "3 jobs: slides 2, tissue 1" in lines
    (done,) = [line for line in lines if re.match(r"\[\d/5\] Joining the tissue index of demo: done in ", line)]
    assert lines.index("[0/3] Generating 4 demo slides of 2048² px") < lines.index(done)
    assert "\033" not in result.stderr and "\r" not in result.stderr and "Reason" not in result.stderr
    summary = lines[lines.index("Summary of results") :]
    assert summary[1].startswith("  Slides     2 of 4 used")
    assert any("md5 mismatch" in line for line in summary) and any("do: the service has" in line for line in summary)
    assert any(line.startswith("  Not made   3: run demo, run demo-hires, model ") for line in summary)
    assert len(lines) < 40
    (log,) = [line.partition(": ")[2] for line in lines if line.startswith("Complete log(s)")]
    assert "Reason: Missing output files" in Path(log).read_text(), "in full in Snakemake's own log"


def test_a_failed_job_shows_its_log_and_the_run_ends_with_the_summary(tmp_path: Path) -> None:
    change = {"demo": None, "data": "real", "gdc": {"api": "http://127.0.0.1:9", "retries": 1, "backoff": 0.01}}
    result = make_workflow(tmp_path, change).run(INDEX)
    assert result.returncode != 0
    lines = result.stderr.splitlines()
    (failed,) = [i for i, line in enumerate(lines) if line.startswith("FAILED: Pinning the manifest of demo (rule pin")]
    refused = "http://127.0.0.1:9: no useful answer"
    assert lines[failed + 1].startswith(f"    error: {refused}") and lines[failed + 2].startswith("    | ")
    assert "    log: results/logs/pin_manifest/demo.log" in lines[failed:]
    end = lines.index("Failed jobs: 1")
    assert lines[end + 1].startswith(f"    Pinning the manifest of demo: {refused}")
    summary = lines[lines.index("Summary of results") :]
    assert summary[1].startswith(f"  Failed     cohort demo: its slides are not ready: {refused}")
    assert len(lines) < 40


def test_a_dry_run_is_as_snakemake_prints_it(tmp_path: Path) -> None:
    result = make_workflow(tmp_path, {}).run("-n", INDEX)
    assert result.returncode == 0 and "Job stats:" in result.stdout
    reasons = [line for line in result.stdout.splitlines() if line.startswith("Reason: ")]
    assert len(reasons) == 3 and max(map(len, reasons)) < 160
