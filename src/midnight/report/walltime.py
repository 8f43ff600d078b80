"""Wall time and memory per rule, from Snakemake's benchmark files."""

import csv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RuleTime:
    """Jobs of one rule: number, seconds in all, seconds of the longest, MB of the largest (None: not measured)."""

    rule: str
    jobs: int
    seconds: float
    longest: float
    max_rss: float | None


def read_walltimes(folder: Path | None) -> list[RuleTime]:
    """Sums over `folder/{rule}/**.tsv` and `folder/{rule}.tsv`, longest first; none without a folder."""
    if folder is None or not folder.is_dir():
        return []
    jobs: dict[str, list[tuple[float, float | None]]] = {}
    for path in sorted(folder.rglob("*.tsv")):
        rule = path.relative_to(folder).with_suffix("").parts[0]
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                seconds = _number(row.get("s"))
                if seconds is not None:
                    jobs.setdefault(rule, []).append((seconds, _number(row.get("max_rss"))))
    times = [_sum(rule, entries) for rule, entries in jobs.items()]
    return sorted(times, key=lambda time: -time.seconds)


def _number(text: str | None) -> float | None:
    """A benchmark cell; Snakemake writes NA or - for what it could not measure."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value == value and abs(value) != float("inf") else None


def _sum(rule: str, entries: list[tuple[float, float | None]]) -> RuleTime:
    seconds = [entry[0] for entry in entries]
    memory = [entry[1] for entry in entries if entry[1] is not None]
    return RuleTime(rule, len(entries), sum(seconds), max(seconds), max(memory, default=None))
