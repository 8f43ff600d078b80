"""Real Snakemake against a service that refuses, then gives: what is tried again, and what is made anew."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from midnight.demo.gdc_service import GdcService, Hooks
from midnight.demo.slides import write_slides
from midnight.hashing import hash_file
from midnight.slides.quarantine import SlideStatus, read_statuses
from midnight.slides.sharding import cut_manifest
from tests.workflow.harness import REPOSITORY, Workflow, copy_workflow, run_snakemake

pytestmark = pytest.mark.workflow

SLIDES = 6
SHARD_SIZE = 2
# the project's rules as far as the tissue index
SNAKEFILE = "\n".join(
    [
        *(f'include: "{REPOSITORY}/rules/{name}.smk"' for name in ("common", "params", "shards", "slides", "tissue")),
        "rule all:",
        "    input: lambda wildcards: [*tried_again(), *map(layout.tissue_index, cfg.cohorts)]",
    ]
)


@dataclass(frozen=True)
class Scene:
    """A service, a folder in which a workflow asks it for six slides in three shards, and the one refused at first."""

    service: GdcService
    folder: Path
    refused: str

    def snakemake(self) -> subprocess.CompletedProcess[str]:
        self.service.requests.clear()
        (self.folder / "Snakefile").write_text(SNAKEFILE)
        arguments = ("--cores", "2", "--keep-going", "--logger", "midnight", "--configfile", "config.yaml")
        return run_snakemake(*arguments, cwd=self.folder)

    def run(self) -> list[str]:
        """Messages of the jobs that were run, in order."""
        result = self.snakemake()
        assert result.returncode == 0, result.stdout + result.stderr
        return messages(result)

    @property
    def index(self) -> Path:
        return self.folder / "results" / "tissue" / "demo" / "index.parquet"

    def downloads(self) -> list[str]:
        return sorted(request.path for request in self.service.requests if request.path.startswith("/data/"))

    def statuses(self) -> list[SlideStatus]:
        tables = (self.folder / "results" / "slides" / "demo").glob("*.tsv")
        return [status for table in tables for status in read_statuses(table)]


def messages(result: subprocess.CompletedProcess[str]) -> list[str]:
    """Of the jobs that began."""
    lines = re.findall(r"^\[ *\d+/\d+\] (.+)$", result.stdout + result.stderr, re.MULTILINE)
    return [line for line in lines if ": done in " not in line]


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six undamaged slides with their catalogue."""
    folder = tmp_path_factory.mktemp("slides")
    write_slides(folder, SLIDES, 1024, 3)
    rows = json.loads((folder / "catalogue.json").read_text())
    for row in rows:
        row |= {"stored": None, "md5sum": hash_file(folder / row["file_name"], "md5")}
    (folder / "catalogue.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture
def scene(slides: Path, tmp_path: Path) -> Iterator[Scene]:
    with GdcService(slides, Hooks()) as service:
        value = {
            "results_dir": "results",
            "data_dir": "data",
            "shard_size": SHARD_SIZE,
            "gdc": {"api": service.url, "retries": 2},
            "cohorts": {"demo": {"source": "gdc"}},
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(value))
        yield Scene(service, tmp_path, list(service.catalogue.entries())[2])


def test_unavailable_slides_are_tried_again_alone_and_what_needs_them_is_made_anew(scene: Scene) -> None:
    hooks = scene.service.hooks
    hooks.fail, hooks.fail_code, hooks.fail_path = 1_000_000, 403, f"/data/{scene.refused}"
    first = scene.run()
    assert sum("Fetching slides" in job for job in first) == SLIDES // SHARD_SIZE
    assert sorted(status.status for status in scene.statuses()) == ["ok"] * 5 + ["unavailable"]
    made = scene.index.stat().st_mtime_ns
    for _ in range(2):
        jobs = scene.run()
        assert len(jobs) == 2 and jobs[0].startswith("Trying again") and jobs[1].startswith("Unavailable slides")
        assert scene.downloads() == [f"/data/{scene.refused}"]
    assert scene.index.stat().st_mtime_ns == made

    hooks.fail = 0
    jobs = scene.run()
    assert scene.downloads() == [f"/data/{scene.refused}"]
    assert sum("Segmenting" in job for job in jobs) == 1 and not any("Fetching slides" in job for job in jobs)
    assert all(status.ok for status in scene.statuses())
    assert scene.index.stat().st_mtime_ns > made
    assert scene.run() == [] and scene.downloads() == []


def test_a_shard_that_is_mostly_refused_fails_and_the_next_run_goes_on(scene: Scene) -> None:
    hooks = scene.service.hooks
    hooks.page = "/data/"
    result = scene.snakemake()
    assert result.returncode != 0 and "an HTML page ('Network login') came instead" in result.stdout + result.stderr
    assert scene.statuses() == []
    hooks.page = ""
    assert sum("Fetching slides" in job for job in scene.run()) == SLIDES // SHARD_SIZE
    assert all(status.ok for status in scene.statuses())


def test_an_excluded_slide_touches_its_own_shards(scene: Scene) -> None:
    scene.run()
    manifest = scene.folder / "results" / "cohorts" / "demo" / "manifest.tsv"
    before = cut_manifest(manifest, SHARD_SIZE)
    exclude = scene.folder / "exclude.csv"
    exclude.write_text(f"file_id,reason\n{scene.refused},blurred\n")
    config = scene.folder / "config.yaml"
    value = yaml.safe_load(config.read_text())
    value["cohorts"]["demo"]["exclude"] = str(exclude)
    config.write_text(yaml.safe_dump(value))
    jobs = scene.run()
    after = cut_manifest(manifest, SHARD_SIZE)
    changed = {name for name, slides in after.items() if before.get(name) != slides}
    assert 0 < len(changed) < len(after)
    for what in ("Fetching slides", "Segmenting"):
        assert {job.rpartition(" ")[2] for job in jobs if what in job} == changed
    assert scene.downloads() == [], "what is here is not downloaded again"


def test_a_try_in_vain_leaves_models_and_scores_alone(tiny_demo: Workflow, tmp_path: Path) -> None:
    workflow = copy_workflow(tiny_demo, tmp_path, {})
    (table,) = (workflow.results / "slides" / "demo").glob("*.tsv")
    bad = next(status.slide_id for status in read_statuses(table) if "size mismatch" in status.reason)
    replace_text(table, f"{bad}\t\tquarantined\t", f"{bad}\t\tunavailable\t")
    catalogue = tmp_path / "data" / "demo-slides" / "catalogue.json"
    rows = [
        row | ({"access": "controlled"} if bad in row["file_name"] else {}) for row in json.loads(catalogue.read_text())
    ]
    replace_text(catalogue, catalogue.read_text(), json.dumps(rows))
    result = workflow.run("all")
    assert result.returncode == 0, result.stdout + result.stderr
    jobs = messages(result)
    assert len(jobs) == 2 and jobs[0].startswith("Trying again") and jobs[1].startswith("Unavailable slides")
    assert [status.unavailable for status in read_statuses(table)].count(True) == 1


def replace_text(path: Path, old: str, new: str) -> None:
    """Change a file as if it had always been so."""
    status, text = path.stat(), path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
