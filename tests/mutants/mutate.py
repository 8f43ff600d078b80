"""Deliberate faults, one at a time, and whether a test notices: `make mutate`. No part of CI.

    python -m tests.mutants.mutate [--only TEXT] [--jobs N]

Each mutant of mutants.yaml is applied to a copy of the sources, and the tests that it names run there, until the first
fails; before that they run without any fault, since a test that always fails notices none. Writes
docs/mutations.md; the status is 1 if a mutant without a reason in survivors.yaml survives.
"""

import argparse
import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "mutations.md"
LIMIT = 300
"""Seconds; a fault that makes the tests hang is noticed too."""


@dataclass(frozen=True)
class Mutant:
    """A fault: in `file` below src/midnight the only `old` becomes `new`; `tests` should notice."""

    file: str
    old: str
    new: str
    tests: str

    @property
    def source(self) -> Path:
        """The file as it is."""
        return ROOT / "src" / "midnight" / self.file

    @property
    def line(self) -> str:
        """In a line, as survivors.yaml names it."""
        return " ".join(f"{self.file}: {self.old} → {self.new or 'nothing'}".split())


def read_mutants() -> list[Mutant]:
    """The list, in its order."""
    return [Mutant(**entry) for entry in yaml.safe_load((HERE / "mutants.yaml").read_text(encoding="utf-8"))]


def read_reasons() -> dict[str, str]:
    """Why a mutant may survive, by its line."""
    return dict(yaml.safe_load((HERE / "survivors.yaml").read_text(encoding="utf-8")) or {})


def apply(mutant: Mutant, copy: Path) -> None:
    """Write the fault into a copy of the repository.

    Raises:
        ValueError: the text is not there, or more than once.
    """
    text = mutant.source.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file}: {mutant.old!r} is there {text.count(mutant.old)} times")
    (copy / "src" / "midnight" / mutant.file).write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")


def survives(mutant: Mutant) -> tuple[bool, float]:
    """Whether all of its tests pass, and after how many seconds that was known."""
    return pass_in_copy(mutant.tests, mutant)


def pass_in_copy(tests: str, mutant: Mutant | None) -> tuple[bool, float]:
    """Whether tests pass in a copy with a fault, or without any, and after how many seconds that was known."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="midnight-mutant-") as folder:
        copy = Path(folder)
        for name in ("src", "tests", "config", "docs", "rules", "workflow", "profiles", "benchmarks", "envs"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (*ROOT.glob("*.toml"), *ROOT.glob("*.md"), ROOT / "Snakefile", ROOT / "Makefile"):
            shutil.copyfile(path, copy / path.name)
        if mutant:
            apply(mutant, copy)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests.split()]
        environment = os.environ | {"PYTHONPATH": f"{copy / 'src'}:{copy}", "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired:
            return False, time.perf_counter() - started
    if done.returncode not in (0, 1, 2):
        sys.exit(f"error: {tests}: pytest ended with {done.returncode}: {done.stdout.decode()[-400:]}")
    return done.returncode == 0, time.perf_counter() - started


def row(mutant: Mutant, alive: bool, reasons: dict[str, str]) -> str:
    """A line of the page's table."""

    def code(text: str) -> str:
        plain = " ".join(text.replace("|", "\\|").split())
        return f"`{plain}`" if plain else "nothing"

    found = f"survived: {reasons.get(mutant.line, 'no reason yet')}" if alive else "caught"
    return f"| {mutant.file} | {code(mutant.old)} | {code(mutant.new)} | {found} |"


def page(found: list[tuple[Mutant, bool]], reasons: dict[str, str]) -> str:
    """docs/mutations.md."""
    alive = sum(survived for _, survived in found)
    rows = "\n".join(row(mutant, survived, reasons) for mutant, survived in found)
    return (
        "# Mutations: would a test notice?\n\n"
        "Written by `make mutate`: each deliberate fault of `tests/mutants/mutants.yaml` is applied to a copy,\n"
        f"and the tests beside it run there. Of {len(found)} faults {len(found) - alive} were caught, {alive} "
        "survived.\n\n"
        f"| file | what is there | the fault | |\n|---|---|---|---|\n{rows}\n"
    )


def main() -> int:
    """Run the list; 1 if a fault survives without a reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="TEXT", default="", help="mutants whose line contains it; writes no page")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    mutants, reasons = [mutant for mutant in read_mutants() if options.only in mutant.line], read_reasons()
    found = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        suites = list(dict.fromkeys(mutant.tests for mutant in mutants))
        for tests, (sound, seconds) in zip(
            suites, pool.map(lambda tests: pass_in_copy(tests, None), suites), strict=True
        ):
            print(f"without a fault {seconds:4.0f} s  {tests}", flush=True)
            if not sound:
                sys.exit(f"error: {tests}: fails without a fault too")
        for number, (mutant, (alive, seconds)) in enumerate(zip(mutants, pool.map(survives, mutants), strict=True), 1):
            word = "SURVIVED" if alive else "caught"
            print(f"[{number}/{len(mutants)}] {word:8} {seconds:4.0f} s  {mutant.line}", flush=True)
            found.append((mutant, alive))
    if not options.only:
        PAGE.write_text(page(found, reasons), encoding="utf-8")
    return int(any(alive and mutant.line not in reasons for mutant, alive in found))


if __name__ == "__main__":
    sys.exit(main())
