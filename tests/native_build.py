"""Builds of the compiled part beside the installed one: by another compiler, or without AVX.

    python tests/native_build.py FILE.so [COMPILER [FLAG…]]

MIDNIGHT_NATIVE=FILE.so then has the package use that build.
"""

import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PLAIN = "-DVECTORIZED="
"""For the baseline instructions alone, where a build otherwise holds several sets and takes the processor's best."""


def build(target: Path, compiler: str = "cc", flags: Sequence[str] = ()) -> Path:
    """Compile the sources that pyproject.toml names, with its flags, into `target`."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"][0]
    sources = [str(REPOSITORY / source) for source in settings["sources"]]
    options = ["-shared", "-fPIC", *settings["extra-compile-args"], *flags]
    subprocess.run([compiler, *options, "-o", str(target), *sources, "-lm"], check=True)
    return target


if __name__ == "__main__":
    build(Path(sys.argv[1]), *sys.argv[2:3], flags=sys.argv[3:])
