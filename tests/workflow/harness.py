"""Real Snakemake on a demo small enough for a test."""

import copy
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from midnight.config import merge, read_yaml

REPOSITORY = Path(__file__).resolve().parents[2]

Snakemake = Callable[..., subprocess.CompletedProcess[str]]


def run_snakemake(*arguments: str | Path, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """`snakemake ARGUMENTS` with output as text; colours off, the demo's service address not inherited."""
    left_out = ("MIDNIGHT_", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    command = [sys.executable, "-m", "snakemake", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=800, env=environment | {"NO_COLOR": "1"}, check=False
    )


@dataclass(frozen=True)
class Workflow:
    """A configuration file and the folder in which the workflow runs with it."""

    folder: Path
    configfile: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def command(self, *arguments: str | Path) -> list[str]:
        """To be run in whatever way."""
        common = ["--snakefile", REPOSITORY / "Snakefile", "--directory", self.folder, "--configfile", self.configfile]
        return [sys.executable, "-m", "snakemake", *map(str, [*arguments, *common, "--cores", "2"])]

    def run(self, *arguments: str | Path, change: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        configfile = self.configfile
        if change:
            configfile = Path(tempfile.mkdtemp(dir=self.folder)) / "changed.yaml"
            configfile.write_text(yaml.safe_dump(merge(read_yaml(self.configfile), change)))
        common = ["--snakefile", REPOSITORY / "Snakefile", "--directory", self.folder, "--configfile", configfile]
        return run_snakemake(*arguments, *common, "--cores", "2")


def make_workflow(folder: Path, change: dict[str, Any], base: str = "demo") -> Workflow:
    """The configuration `config/{base}.yaml` with `change`, in `folder`."""
    value = merge(read_yaml(REPOSITORY / "config" / f"{base}.yaml"), {"results_dir": "results", "data_dir": "data"})
    if base == "demo":
        value = merge(value, copy.deepcopy(TINY))
    configfile = folder / "config.yaml"
    configfile.write_text(yaml.safe_dump(merge(value, change)))
    return Workflow(folder, configfile)


def copy_workflow(made: Workflow, folder: Path, change: dict[str, Any]) -> Workflow:
    """What a workflow has made, in another folder, to go on from there with a changed configuration."""
    shutil.copytree(made.folder, folder, ignore=shutil.ignore_patterns("locks"), dirs_exist_ok=True)
    configfile = folder / "config.yaml"
    configfile.write_text(yaml.safe_dump(merge(read_yaml(made.configfile), change)))
    return Workflow(folder, configfile)


TINY_RUN = {
    "training": {"iterations": 4, "batch_size": 4, "checkpoint_every": 2, "log_every": 1, "workers": 0},
    "backbone": {"kwargs": {"depth": 2, "embed_dim": 48, "num_heads": 2, "patch_size": 14}},
    "crops": {"n_local": 2},
    "heads": {"prototypes": 64, "hidden": 64, "bottleneck": 32},
}
TINY: dict[str, Any] = {
    "demo": {"slides": 4, "size": 2048, "benchmark_scale": 0.2},
    "tissue": {"workers": 1},
    "runs": {"demo": {"override": TINY_RUN}, "demo-hires": {"override": TINY_RUN}},
    "evaluation": {
        "data_root": "data/benchmarks",
        "models": ["demo-random", "demo"],
        "tasks": ["demo-pcam-10shot", "demo-hest-a"],
    },
}
