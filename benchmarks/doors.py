"""The README's doors, walked from a fresh clone: how long each command takes, what it leaves on disk, what it shows.

    python benchmarks/doors.py [--doors demo weights slides cluster] [--slides FOLDER --tiles FOLDER] [--out FILE.md]

The commands are read from the table in README.md. Without folders of your own the last three use the demo's slides,
its trained model and its labelled tiles. Status 1 if a door does not open; see benchmarks/README.md.
"""

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tiles_support.page import add_out, check_out, deliver, hardware, table, versions

ROOT = Path(__file__).resolve().parents[1]
DOORS = ("demo", "weights", "slides", "cluster")
ABOVE = re.compile(r"(?<![\w.])/(?:[^/\s'\"]+/)+")
"""The folders above an absolute path's last part."""
COMMAND = re.compile(r"^\|[^|]*\| `([^`]+)` \|", re.MULTILINE)
DEMO = "results/demo"


@dataclass(frozen=True)
class Walk:
    """One door: the command as typed, its seconds, MB that came with it, and what a person has afterwards."""

    door: str
    command: str
    seconds: float
    megabytes: float
    status: int
    shows: str


def commands(readme: str) -> dict[str, str]:
    """The command of each door, as the README's table has it.

    Raises:
        SystemExit: the table has not one row for each door.
    """
    found = COMMAND.findall(readme)
    if len(found) != len(DOORS):
        sys.exit(f"error: README.md: {len(found)} commands in its table of doors instead of {len(DOORS)}")
    return dict(zip(DOORS, found, strict=True))


def fill(door: str, command: str, slides: Path, tiles: Path, weights: Path) -> tuple[str, str]:
    """A door's command with its blanks filled, and the folder of its results."""
    if door == "weights":
        filled = command.replace("WEIGHTS", shlex.quote(str(weights))).replace("FOLDER", shlex.quote(str(tiles)))
        return f"{filled} --out results/door", "results/door"
    if door == "slides":
        keys = (f"cohorts={{local: {{path: '{slides}'}}}}", f"evaluation={{folders: {{tiles: '{tiles}'}}}}")
        return f"{command} --config {' '.join(map(shlex.quote, keys))}", "results/local"
    return (f"{command} -n", "") if door == "cluster" else (command, DEMO)


def size_of(folder: Path) -> float:
    """MB of the files below a folder; 0 without one."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def shown(clone: Path, results: str, text: str) -> str:
    """What a person has: the report's rows of scores, or the number of jobs of a plan."""
    if not results:
        jobs = re.findall(r"^total +(\d+)", text, re.MULTILINE)
        return f"a plan of {int(jobs[-1]):,} jobs" if jobs else ""
    report = clone / results / "report.html"
    models = {
        path.relative_to(clone / results / "scores").parts[0] for path in (clone / results).glob("scores/**/*.json")
    }
    return f"report of {report.stat().st_size / 1e6:.1f} MB, scores of {len(models)} models" if report.is_file() else ""


def walk(door: str, command: str, clone: Path, results: str) -> Walk:
    """Type a door's command into a shell in the clone, with its environment active."""
    print(f"{door}: {command}", file=sys.stderr, flush=True)
    before, started = size_of(clone / results) if results else 0.0, time.perf_counter()
    active = f"[ ! -f .venv/bin/activate ] || . .venv/bin/activate; {command}"
    done = subprocess.run(
        ["bash", "-c", active], cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    seconds = time.perf_counter() - started
    (clone / f"{door}.log").write_text(done.stdout, encoding="utf-8")
    shows = shown(clone, results, done.stdout) if not done.returncode else " ".join(done.stdout.split()[-60:])
    return Walk(door, command, seconds, (size_of(clone / results) if results else 0.0) - before, done.returncode, shows)


def walks(clone: Path, options: argparse.Namespace) -> Iterator[Walk]:
    """The set-up and each door that was asked for."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    setup = walk("set-up", "make setup", clone, ".venv")
    yield setup if setup.status else Walk(**asdict(setup) | {"shows": "an environment"})
    slides = options.slides or clone / DEMO / "data/demo-slides"
    tiles = options.tiles or clone / DEMO / "data/benchmarks/crc"
    for door, command in commands((clone / "README.md").read_text(encoding="utf-8")).items():
        if door in options.doors:
            filled, results = fill(door, command, slides, tiles, options.weights or clone / DEMO / "models/demo")
            yield walk(door, filled, clone, results)


def page(found: list[Walk], clone: Path) -> str:
    """The figures as a table; where the folders lie on this machine tells nobody anything."""
    rows = [
        {
            "door": item.door,
            "command": f"`{ABOVE.sub('', item.command.replace(f'{clone}/', ''))}`",
            "minutes": round(item.seconds / 60, 1),
            "MB": round(item.megabytes),
            "status": item.status,
            "what there is": item.shows,
        }
        for item in found
    ]
    return table(rows)


def main(argv: list[str] | None = None) -> int:
    """Walk the doors and print the table; 1 when one does not open."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--doors", nargs="+", choices=DOORS, default=list(DOORS))
    parser.add_argument("--quick", action="store_true", help="the demo's door alone")
    parser.add_argument("--slides", type=Path, help="slides for the third door (default: the demo's)")
    parser.add_argument("--tiles", type=Path, help="labelled tiles (default: the demo's)")
    parser.add_argument("--weights", type=Path, help="weights for the second door (default: the demo's)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, as the last line")
    add_out(parser)
    options = parser.parse_args(argv)
    if options.quick:
        options.doors = ["demo"]
    if "demo" not in options.doors and not (options.slides and options.tiles and options.weights):
        needy = sorted({"weights", "slides"} & set(options.doors))
        if needy:
            parser.error(f"{', '.join(needy)} without demo: name --slides, --tiles and --weights")
    check_out(options)
    with tempfile.TemporaryDirectory(prefix="midnight-doors-") as folder:
        clone = Path(folder, "midnight")
        found = list(walks(clone, options))
        text = page(found, clone)
    failed = [item.door for item in found if item.status or not item.shows]
    summary = f"FAILED: {', '.join(failed)}" if failed else f"{len(found)} commands, each ended as the README says"
    details = {"machine": hardware(), "versions": versions(), "walks": [asdict(item) for item in found]}
    record = {"name": "doors", "unit": "doors open", "ours": len(found) - len(failed), "peer": None, "ratio": None}
    record |= {"goal": len(found), "details": details}
    deliver("The doors", summary, {"Commands": text}, record, options.out, options.json)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
