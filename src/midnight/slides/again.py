"""Which slides a run tries again. Imports little: the Snakefile asks at every start."""

from pathlib import Path

from midnight.slides.quarantine import UNAVAILABLE


def has_unavailable(path: str | Path) -> bool:
    """Whether a table lists slides that the next run should try again; False if there is no table."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return False
    return any(line.split("\t")[2:3] == [UNAVAILABLE] for line in lines)


def next_attempt(folder: str | Path) -> str:
    """The number of the next attempt: folders of earlier ones are named by theirs."""
    root = Path(folder)
    numbers = [int(path.name) for path in root.iterdir() if path.name.isdecimal()] if root.is_dir() else []
    return str(max(numbers, default=0) + 1)
