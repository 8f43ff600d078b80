"""Options that several commands share."""

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from midnight.errors import MidnightError
from midnight.home import project_file
from midnight.outputs import FORCE


def add_weights(command: argparse.ArgumentParser) -> None:
    """What is to be known of weights that don't say it themselves."""
    triple: dict[str, Any] = {"type": float, "nargs": 3, "metavar": ("R", "G", "B")}
    command.add_argument("--mean", **triple, help="normalisation of images in 0-1, where the weights' folder has none")
    command.add_argument("--std", **triple, help="the same: standard deviation")
    command.add_argument("--arch", help="timm's name of the architecture, where it can't be told")
    command.add_argument("--size", type=int, help="input size, px (default: the one that it was trained at)")


def add_config(command: argparse.ArgumentParser) -> None:
    """The configuration's file."""
    default = project_file("config", "config.yaml")
    command.add_argument("--configfile", type=Path, default=default, help="default: config/config.yaml")


def at_least_one(text: str) -> int:
    """A whole number of the command line, from 1 on.

    Raises:
        ArgumentTypeError: it is something else.
    """
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 on")
    return int(text)


def positive(text: str) -> float:
    """A positive number of the command line.

    Raises:
        ArgumentTypeError: it is something else.
    """
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def add_training(command: argparse.ArgumentParser) -> None:
    """A run, how it goes on, and where it runs."""
    command.add_argument("run_name", metavar="RUN", help="a run of the configuration")
    command.add_argument(
        "--continue-with",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="go on from the newest checkpoint with these values, such as optimizer.base_lr=1e-4, which the run's "
        "override must have too; without it other values begin anew",
    )
    command.add_argument("--prepare-only", action="store_true", help="leave the training to the next snakemake")
    command.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="(default: %(default)s)")
    command.add_argument("--profile", help="of Snakemake, such as slurm, instead of --cores")


def assigned(texts: Sequence[str]) -> dict[str, Any]:
    """Values by key, as a YAML file would have them, of KEY=VALUE.

    Raises:
        MidnightError: one is no KEY=VALUE.
    """
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise MidnightError(f"--continue-with {text}: is no KEY=VALUE such as optimizer.base_lr=1e-4")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise MidnightError(f"--continue-with {text}: the value is no YAML") from error
    return values


def add_force(command: argparse.ArgumentParser) -> None:
    """Leave to replace files that this command did not make."""
    command.add_argument("--force", action="store_true", help=FORCE)


def add_rates(command: argparse.ArgumentParser) -> None:
    """The GPU and the rates by which a run is reckoned."""
    command.add_argument(
        "--gpu",
        choices=("h100", "h100pcie", "h200", "b200", "a100", "l40s", "rtx4090", "a10"),
        default="h100",
        help="(default: %(default)s)",
    )
    command.add_argument("--mfu", type=float, default=0.45, help="share of its peak reached (default: %(default)s)")
    command.add_argument("--memory", type=float, help="of the GPU, GB (default: as it is sold)")
    command.add_argument("--price", type=float, help="USD per GPU-hour (default: an assumption, stated in the output)")
    command.add_argument("--watts", type=float, help="per GPU (default: its board's limit)")
    command.add_argument("--json", action="store_true", help="recipe and budget as JSON, in plain numbers")
