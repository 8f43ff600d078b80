"""`midnight init`: a folder to work in, without a checkout."""

import argparse
import shutil
from pathlib import Path
from typing import Any

from midnight.errors import MidnightError
from midnight.home import PARTS, installed

NEXT = """{folder}: the workflow and its configuration. Next:
  cd {folder}
  snakemake --profile profiles/demo all      the demo, on generated slides: a report in about ten minutes
  midnight doctor                            what this machine lacks
Your own slides: fill in config/local.yaml, then snakemake --cores all --configfile config/local.yaml
"""


def add_init(commands: Any) -> None:
    """The command, to argparse's own."""
    init = commands.add_parser("init", help="make a folder to work in: Snakefile, rules, configuration, profiles")
    init.add_argument("folder", type=Path, help="new or empty")
    init.set_defaults(run=run_init)


def run_init(arguments: argparse.Namespace) -> None:
    """`midnight init FOLDER`.

    Raises:
        MidnightError: something is in that folder already, or it can't be written.
    """
    make_folder(arguments.folder)
    print(NEXT.format(folder=arguments.folder), end="")


def make_folder(folder: Path) -> None:
    """Copy what the workflow needs from the installed project; of a checkout without what was made there.

    Raises:
        MidnightError: see `run_init`.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise MidnightError(f"{folder}: is not empty; name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            source = installed() / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".snakemake"))
            else:
                shutil.copyfile(source, folder / part)
        (folder / "slurm").symlink_to(Path("profiles") / "slurm")
    except OSError as error:
        raise MidnightError(
            f"{error.filename or folder}: {error.strerror}; choose a folder that can be written"
        ) from error
