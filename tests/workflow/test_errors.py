"""Bad input gets one clear line and a non-zero exit, before or instead of hours of work."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.harness import make_workflow

pytestmark = pytest.mark.workflow


def said(result: subprocess.CompletedProcess[str]) -> str:
    """All output on one line: a dry run reports on standard output, a run on standard error."""
    return " ".join((result.stdout + result.stderr).split())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"tissue": {"mpp": -1}}, "tissue.mpp: -1 is less than or equal to the minimum of 0"),
        ({"tisue": {}}, "unknown key 'tisue'"),
        ({"cohorts": {"demo": {"source": "ftp"}}}, "cohorts.demo.source: 'ftp' is none of gdc, local"),
        ({"runs": {"demo": {"recipe": "nope"}}}, "unknown recipe 'nope'"),
        ({"runs": {"demo": {"override": {"tiles": {"mpps": [-0.5]}}}}}, "tiles.mpps.0: -0.5 is less than"),
        ({"evaluation": {"models": ["nobody"]}}, "nobody"),
        ({"evaluation": {"tasks": ["nothing"]}}, "nothing"),
        ({"cohorts": {"demo": {"manifest": "/nowhere.tsv"}}}, "/nowhere.tsv"),
    ],
)
def test_wrong_configuration_stops_at_once(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    result = make_workflow(tmp_path, change).run("-n", "all")
    assert result.returncode != 0
    assert expected in said(result)
    assert "Traceback" not in said(result)


def test_missing_key_is_named(tmp_path: Path) -> None:
    workflow = make_workflow(tmp_path, {})
    workflow.configfile.write_text("runs: {demo: {cohorts: {demo: 1}}}\ncohorts: {demo: {source: gdc}}\n")
    result = workflow.run("-n", "all")
    assert result.returncode != 0
    assert "runs.demo: missing key 'recipe'" in said(result)


def test_empty_folder_of_slides_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cohorts = {"demo": {"source": "local", "path": str(tmp_path / "empty")}}
    workflow = make_workflow(tmp_path, {"cohorts": cohorts})
    result = workflow.run("results/tissue/demo/index.parquet")
    assert result.returncode != 0
    assert f"{tmp_path / 'empty'}" in said(result)
    assert "no slides" in said(result).lower()


def test_service_that_is_down_is_named(tmp_path: Path) -> None:
    change = {"demo": None, "data": "real", "gdc": {"api": "http://127.0.0.1:9", "retries": 1}}
    workflow = make_workflow(tmp_path, change)
    result = workflow.run("results/tissue/demo/index.parquet")
    assert result.returncode != 0
    assert "http://127.0.0.1:9" in said(result)
