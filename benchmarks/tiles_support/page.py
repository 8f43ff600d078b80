"""The dated page of a benchmark: hardware, versions, command, figures."""

import argparse
import datetime
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from midnight.atomic import write_text
from midnight.errors import MidnightError
from midnight.outputs import FORCE, check_file, text_with
from midnight.provenance import git_commit

PACKAGES = (
    "midnight", "wsistream", "numpy", "numba", "torch", "opencv-python-headless", "openslide-python", "openslide-bin",
    "simplejpeg", "tifffile", "imagecodecs", "pyarrow", "timm", "xformers", "kaiko-eva", "lightning",
)  # fmt: skip


def hardware() -> dict[str, str]:
    """The machine in words."""
    return {
        "processor": _processor(),
        "cores": f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Installed versions of what the figures depend on."""
    return {name: found for name in PACKAGES if (found := _version(name))}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table; None is empty."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *[[_cell(row.get(name)) for name in names] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def add_out(parser: argparse.ArgumentParser) -> None:
    """The options that write the page."""
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the dated page")
    parser.add_argument("--force", action="store_true", help=FORCE)


def check_out(options: argparse.Namespace) -> None:
    """Before anything is measured: the page replaces no file but a page of this benchmark.

    Raises:
        SystemExit: it would.
    """
    if options.out:
        data = getattr(options, "data", None)
        read = [path for path in data.rglob("*") if path.is_file()] if data else []
        try:
            check_file(options.out, read, text_with(f"`{_command([])}"), options.force)
        except MidnightError as error:
            sys.exit(f"error: {error}")


def write_page(path: Path, title: str, summary: str, sections: Mapping[str, str]) -> None:
    """Write the page; each section is Markdown under its heading."""
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    facts = [f"- {name}: {value}" for name, value in hardware().items()]
    head = [f"# {title}", "", f"{date}, commit {git_commit()}, `{_command(_shown(sys.argv[1:]))}`", "", *facts]
    head += ["- versions: " + ", ".join(f"{name} {version}" for name, version in versions().items()), "", summary]
    body = [f"\n## {heading}\n{text}" for heading, text in sections.items()]
    write_text(path, "\n".join([*head, *body]) + "\n")


def _command(arguments: list[str]) -> str:
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *arguments])


def _shown(arguments: list[str]) -> list[str]:
    """The arguments without those that name files of this machine."""
    hidden, shown = ("--out", "--data", "--slides", "--tiles", "--weights"), []
    for number, argument in enumerate(arguments):
        before = arguments[number - 1] if number else ""
        if (
            argument not in (*hidden, "--force")
            and before not in hidden
            and not argument.startswith(tuple(f"{h}=" for h in hidden))
        ):
            shown.append(argument)
    return shown


def deliver(
    title: str, line: str, parts: Mapping[str, str], found: Mapping[str, Any], out: Path | None, as_json: bool
) -> None:
    """Print a benchmark's summary and sections; write the page and print the JSON object where that is asked for."""
    print(line, *(f"\n{name}\n{text}" for name, text in parts.items()), sep="\n")
    if out:
        write_page(out, title, line, parts)
    if as_json:
        print(json.dumps(found))
