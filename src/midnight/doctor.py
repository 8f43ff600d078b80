"""`midnight doctor`: does this machine have what a run needs, and what to do where it doesn't."""

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from midnight import native
from midnight.config import Config
from midnight.errors import MidnightError
from midnight.home import installed, project_file, workflow_folder

Status = Literal["ok", "note", "fail"]
GIB = 1 << 30
MARKS = {"ok": "✓", "note": "·", "fail": "✗"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `note` is worth knowing, `fail` stops a run."""

    name: str
    status: Status
    detail: str
    advice: str = ""

    def line(self) -> str:
        """The finding as one printed line."""
        advice = f"\n    → {self.advice}" if self.advice else ""
        return f"{MARKS[self.status]} {self.name}: {self.detail}{advice}"


def check_python(_: Config) -> Iterator[Finding]:
    """Python's version."""
    version = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info < (3, 11)
    yield Finding("Python", "fail" if old else "ok", version, "install Python 3.11 or newer" if old else "")


def check_lock(_: Config) -> Iterator[Finding]:
    """Installed packages against envs/requirements.lock."""
    wrong = [f"{name} {_installed(name)} (locked {version})" for name, version in _locked() if not _same(name, version)]
    if wrong:
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        yield Finding("Environment", "note", f"differs from the lock: {shown}", "run make setup")
    else:
        yield Finding("Environment", "ok", "as in envs/requirements.lock")


def check_native(_: Config) -> Iterator[Finding]:
    """The compiled part of the tile reader."""
    if native.library():
        yield Finding("Compiled tile decoder", "ok", "built")
    else:
        advice = "install a C compiler (gcc or clang), then run make -B setup"
        yield Finding(
            "Compiled tile decoder", "note", "not built: tiles are read and cropped at half the speed", advice
        )


def _locked() -> list[tuple[str, str]]:
    lines = project_file("envs", "requirements.lock").read_text().splitlines()
    pins = (line.split(" ;")[0].rstrip(" \\") for line in lines if "==" in line and not line.startswith((" ", "#")))
    versions: dict[str, list[str]] = {}
    for pin in pins:
        name, _, version = pin.partition("==")
        versions.setdefault(name.split("[")[0], []).append(version.strip())
    # a package pinned twice is pinned by Python version or platform: leave the choice to the installer
    return [(name, pinned[0]) for name, pinned in versions.items() if len(pinned) == 1]


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def _same(name: str, version: str) -> bool:
    # absent packages may be pinned for another platform only; what is needed fails on its own check
    return _installed(name) in (version, "absent")


def check_torch(_: Config) -> Iterator[Finding]:
    """torch, its GPUs, xformers' kernels."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Finding("torch", "ok", f"{torch.__version__}, CUDA {torch.version.cuda}, {len(names)} × {names[0]}")
    else:
        advice = "fine for make demo and config/local.yaml; the paper's recipes need GPUs (check nvidia-smi)"
        yield Finding("torch", "note", f"{torch.__version__}, no GPU", advice)
    yield _check_xformers(torch.__version__)


def _check_xformers(torch_version: str) -> Finding:
    """Never a failure: attention runs without it, slower on a GPU."""
    version = _installed("xformers")
    if version == "absent":
        return Finding("xformers", "note", "absent: attention runs on torch's own kernels")
    try:
        importlib.import_module("xformers.ops")
    except ImportError as error:
        reason = " ".join(str(error).split())[:200]
        advice = f"install its release for torch {torch_version}; until then attention runs on torch's own kernels"
        return Finding("xformers", "note", f"{version} can't be imported: {reason}", advice)
    return Finding("xformers", "ok", version)


def check_openslide(_: Config) -> Iterator[Finding]:
    """OpenSlide's library."""
    try:
        import openslide

        yield Finding("OpenSlide", "ok", f"library {openslide.__library_version__}, Python {openslide.__version__}")
    except (ImportError, OSError) as error:
        yield Finding("OpenSlide", "fail", str(error), "run make setup: openslide-bin brings the library")


def check_eva(_: Config) -> Iterator[Finding]:
    """eva's version and the jsonargparse release that its configurations need."""
    version = _installed("jsonargparse")
    good = version != "absent" and tuple(map(int, version.split(".")[:2])) < (4, 52)
    advice = "" if good else "install jsonargparse<4.52: newer ones reject eva's own configurations"
    yield Finding("kaiko-eva", "ok" if good else "fail", f"{_installed('kaiko-eva')}, jsonargparse {version}", advice)


def check_disk(config: Config) -> Iterator[Finding]:
    """Free space where results and slides go."""
    wanted = {config.results_dir: 2, config.data_dir: 2 if config.demo else 100}
    for folder, gib in wanted.items():
        there = next(path for path in [Path(folder).absolute(), *Path(folder).absolute().parents] if path.exists())
        free = shutil.disk_usage(there).free / GIB
        low = free < gib
        advice = f"free some space or point the key at a larger disk (TCGA FFPE: 12.95 TB); wanted ≥ {gib} GiB"
        status: Status = "ok" if not low else "fail" if config.demo else "note"
        yield Finding(f"Disk {folder}", status, f"{free:.0f} GiB free", advice if low else "")
        if not os.access(there, os.W_OK):
            yield Finding(f"Disk {folder}", "fail", f"{there} can't be written", "choose another folder")


def check_home(_: Config) -> Iterator[Finding]:
    """Whose files are read: those of the working directory, of a checkout, or of the installed package."""
    asked = ("Snakefile", "config/tasks.yaml", "config/models.yaml", "config/datasets.yaml")
    places: dict[Path, list[str]] = {}
    for name in asked:
        path = project_file(*name.split("/"))
        places.setdefault(path.parents[len(Path(name).parts) - 1], []).append(name)
    for folder, names in places.items():
        what = "all files" if len(names) == len(asked) else ", ".join(names)
        yield Finding("Project files", "ok", f"{what} of {folder}")
    if (folder := workflow_folder()) != installed() and (folder / "src" / "midnight").is_dir():
        advice = f"run make setup in {folder}, and use {folder}/.venv/bin"
        yield Finding("Package", "fail", f"installed from {installed()}, the workflow is that of {folder}", advice)


def check_profiles(_: Config) -> Iterator[Finding]:
    """Snakemake's profiles and a scheduler behind the slurm one."""
    for name in ("default", "demo", "slurm"):
        path = workflow_folder() / "profiles" / name / "config.yaml"
        advice = "" if path.exists() else "check the file out again (git checkout profiles)"
        yield Finding(f"Profile {name}", "ok" if path.exists() else "fail", f"profiles/{name}", advice)
    if not (workflow_folder() / "slurm" / "config.yaml").exists():
        yield Finding("Profile slurm", "fail", "the link ./slurm is gone", "ln -s profiles/slurm slurm")
    sbatch = shutil.which("sbatch")
    advice = "" if sbatch else "only needed for --profile slurm: run it on a login node"
    yield Finding("Slurm", "ok" if sbatch else "note", sbatch or "no sbatch on the PATH", advice)


def check_services(config: Config) -> Iterator[Finding]:
    """The GDC and a remote MLflow server, where configured."""
    if config.demo:
        yield Finding("GDC", "ok", "the demo starts its own on loopback")
    elif any(cohort.source == "gdc" for cohort in config.cohorts.values()):
        yield _reach("GDC", os.path.expandvars(config.gdc.api).rstrip("/") + "/status", "gdc.api")
    uri = config.mlflow.tracking_uri or ""
    if uri.startswith("http"):
        yield _reach("MLflow", uri.rstrip("/") + "/health", "mlflow.tracking_uri")


def _reach(name: str, url: str, key: str) -> Finding:
    import requests

    try:
        requests.get(url, timeout=10).raise_for_status()
        return Finding(name, "ok", f"{url} answers")
    except requests.RequestException as error:
        advice = f"check the network, a proxy (HTTPS_PROXY), or the key {key}"
        return Finding(name, "fail", f"{url} does not answer ({type(error).__name__})", advice)


def check_data(config: Config) -> Iterator[Finding]:
    """Local cohorts' folders."""
    for name, cohort in config.cohorts.items():
        if cohort.source == "local":
            there = Path(cohort.path or "").exists()
            advice = "" if there else f"set cohorts.{name}.path to a folder or CSV of slides"
            yield Finding(f"Cohort {name}", "ok" if there else "fail", str(cohort.path), advice)


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    check_python,
    check_lock,
    check_native,
    check_torch,
    check_openslide,
    check_eva,
    check_disk,
    check_home,
    check_profiles,
    check_services,
    check_data,
)


def examine(config: Config) -> Iterator[Finding]:
    """All findings, in the order of `CHECKS`."""
    for check in CHECKS:
        yield from check(config)


def doctor(config: Config) -> None:
    """Print every finding.

    Raises:
        MidnightError: at least one finding stops a run.
    """
    failed = 0
    for finding in examine(config):
        print(finding.line(), flush=True)
        failed += finding.status == "fail"
    if failed:
        raise MidnightError(f"{failed} of the checks above failed; follow the arrows")
