"""Options that several commands share."""

import argparse
import math
from pathlib import Path
from typing import Any

from midnight.config import CONFIG_DIR
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
    default = CONFIG_DIR / "config.yaml"
    command.add_argument("--configfile", type=Path, default=default, help="default: config/config.yaml")


def positive(text: str) -> float:
    """A positive number of the command line.

    Raises:
        ArgumentTypeError: it is something else.
    """
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def add_force(command: argparse.ArgumentParser) -> None:
    """Leave to replace files that this command did not make."""
    command.add_argument("--force", action="store_true", help=FORCE)


def add_rates(command: argparse.ArgumentParser) -> None:
    """The GPU and the rates by which a run is reckoned."""
    command.add_argument(
        "--gpu",
        choices=("h100", "h200", "a100", "l40s", "rtx4090", "a10"),
        default="h100",
        help="(default: %(default)s)",
    )
    command.add_argument("--mfu", type=float, default=0.45, help="share of its peak reached (default: %(default)s)")
    command.add_argument("--memory", type=float, help="of the GPU, GB (default: as it is sold)")
    command.add_argument("--price", type=float, help="USD per GPU-hour (default: an assumption, stated in the output)")
    command.add_argument("--watts", type=float, help="per GPU (default: its board's limit)")
    command.add_argument("--json", action="store_true", help="recipe and budget as JSON, in plain numbers")
