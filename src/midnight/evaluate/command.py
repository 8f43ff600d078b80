"""`midnight evaluate`: from weights and a folder of labelled tiles to a report, by a configuration of a few lines."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from midnight.atomic import write_text
from midnight.config import plain
from midnight.errors import MidnightError
from midnight.evaluate.entries import Model
from midnight.evaluate.registry import load_models
from midnight.home import workflow_folder
from midnight.outputs import check_file, text_with

MARK = "# Written by `midnight evaluate`"
HEADER = (
    MARK
    + """; edit it and run it again, from the folder of the checkout:
#   snakemake --cores {cores} --configfile {path}
"""
)
KEPT = ("path", "sizes", "arch", "mean", "std")
BASELINE = "colour-statistics"


def make_config(weights: Sequence[Model], tiles: Path, out: Path, gpu: bool) -> dict[str, Any]:
    """The configuration that evaluates these models, each beside its random init where it has one.

    Args:
        weights: entries of source `weights` with their sizes, or of the registry.
        tiles: folder or CSV of labelled images.
        out: folder of the results.
        gpu: whether there is one; without it one thread decodes images.

    Raises:
        MidnightError: two models have the same name.
    """
    names = [model.name for model in weights]
    if twice := [name for name in names if names.count(name) > 1]:
        raise MidnightError(f"two of the weights are called {twice[0]!r}; give links to them with names of their own")
    own = {model.name: _entry(model) for model in weights if model.source == "weights"}
    evaluation = {
        "models": [BASELINE, *(name for name in names if name not in own)],
        "weights": own,
        "folders": {"tiles": str(tiles.resolve())},
    }
    return {"results_dir": str(out.resolve()), "evaluation": evaluation | ({} if gpu else {"workers": 1})}


def _entry(model: Model) -> dict[str, Any]:
    """An entry's keys that say something."""
    return {name: value for name, value in plain(model).items() if name in KEPT and value is not None}


def find_weights(given: str, shared: Model) -> Model:
    """What a person names: a path, or a model of config/models.yaml.

    Args:
        given: the path or name.
        shared: an entry with the keys that hold for all weights (mean, std, arch, sizes).

    Raises:
        MidnightError: there is no such path or model, or something can't be told about the weights.
    """
    known = load_models()
    path = Path(given)
    if not path.exists() and given in known and known[given].source not in ("run", "init"):
        return known[given]
    from midnight.evaluate.weights import load_weights
    from midnight.evaluate.weights.places import SUFFIXES

    name = path.resolve().name
    name = name.removesuffix(path.suffix) if path.suffix in SUFFIXES else name
    model = replace(shared, name=name, label=name, path=str(path.resolve()))
    loaded = load_weights(model)  # here, so that what can't be told is said before anything runs
    return model if model.sizes else replace(model, sizes=[loaded.size])


def write_config(config: dict[str, Any], out: Path, cores: int, force: bool = False) -> Path:
    """Write OUT/config.yaml; returns its path.

    Raises:
        MidnightError: a file is there that this command did not write.
    """
    path = out / "config.yaml"
    check_file(path, [], text_with(MARK), force)
    text = yaml.safe_dump(config, sort_keys=False, default_flow_style=None, allow_unicode=True)
    write_text(path, HEADER.format(cores=cores, path=path.resolve()) + text)
    return path.resolve()


def run_workflow(configfile: Path, arguments: Sequence[str], folder: Path | None = None) -> int:
    """Run the workflow on a configuration; returns its exit status.

    Args:
        configfile: its path, from wherever.
        arguments: of Snakemake: targets first, then cores or a profile.
        folder: that relative paths of the configuration are in; that of the Snakefile if None.
    """
    home = workflow_folder()
    snakefile = ["--snakefile", str(home / "Snakefile"), "--configfile", str(configfile)]
    command = [sys.executable, "-m", "snakemake", *arguments, *snakefile]
    return subprocess.run(command, cwd=folder or home, check=False).returncode
