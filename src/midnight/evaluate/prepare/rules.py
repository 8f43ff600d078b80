"""What each data set's folder must hold: `config/datasets.yaml` and its patterns. Light: the workflow imports it."""

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midnight.atomic import write_json
from midnight.config.fields import build, key, schema
from midnight.config.load import read_yaml
from midnight.config.pipeline import is_generated
from midnight.errors import ConfigError
from midnight.evaluate.entries import Task
from midnight.home import project_file
from midnight.slides.names import file_name_problem

BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Download:
    """A file that eva's class knows the address of."""

    gb: float = key(doc="size of the download, 10⁹ bytes", minimum=0)
    files: dict[str, int] = key(dict, "what it brings, as `files` of the data set; empty: itself", minimum=1)
    md5: str | None = key(None, "published md5, where eva's class has none", pattern="^[0-9a-f]{32}$")

    def needed(self, name: str) -> dict[str, int]:
        """What it brings, when its own name is `name`."""
        return self.files or {name: 1}


@dataclass(frozen=True)
class Rules:
    """What one data set's folder must hold, and where to get it."""

    files: dict[str, int] = key(
        dict,
        "pattern of paths: how many files; `*` within a name, `**` any folders, {a,b} and {01..20} each",
        minimum=1,
    )
    lists: dict[str, list[str]] = key(dict, "pattern of CSV files: paths that each row names, with {column}s")
    downloads: dict[str, Download] = key(dict, "files that eva's class of the data set can be asked for")
    hint: str = key("", "what to know when fetching it by hand")

    @property
    def needed(self) -> dict[str, int]:
        """All patterns, with those of the downloads."""
        needed = dict(self.files)
        for name, download in self.downloads.items():
            needed |= download.needed(name)
        return needed

    @property
    def patterns(self) -> list[re.Pattern[str]]:
        """The patterns that stand for many files."""
        return [pattern_regex(one) for pattern in self.needed for one in expand(pattern) if "*" in one]


def datasets_schema() -> dict[str, Any]:
    """The JSON schema of `config/datasets.yaml`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "datasets",
        "type": "object",
        "additionalProperties": False,
        "properties": {"datasets": {"type": "object", "additionalProperties": schema(Rules)}},
        "required": ["datasets"],
    }


def write_schema(folder: Path) -> Path:
    """Write `datasets.schema.json`, for editors and reviewers; returns the path."""
    path = folder / "datasets.schema.json"
    write_json(path, datasets_schema())
    return path


def load_rules(path: Path | None = None) -> dict[str, Rules]:
    """All rules by folder (`dataset.root` of the tasks; may hold `*`).

    Raises:
        ConfigError: the file or an entry is wrong; names the file, the entry and the key.
    """
    path = path or project_file("config", "datasets.yaml")
    entries = read_yaml(path).get("datasets")
    if not isinstance(entries, dict):
        raise ConfigError(f"{path}: missing key 'datasets': a mapping of folders")
    rules = {}
    for folder, value in entries.items():
        where = f"{path}: datasets.{folder}"
        rules[str(folder)] = build(Rules, value, where)
        for name in rules[str(folder)].downloads:
            if problem := file_name_problem(name):
                raise ConfigError(f"{where}.downloads: {problem}")
    return rules


def rules_for(task: Task, rules: Mapping[str, Rules]) -> Rules:
    """The rules of a task's data; empty for generated stand-ins and for data sets without an entry."""
    if is_generated(task.data):
        return Rules()
    folder = task.dataset.root
    return next((value for pattern, value in rules.items() if fnmatch.fnmatchcase(folder, pattern)), Rules())


def group_tasks(tasks: Mapping[str, Task]) -> dict[str, list[str]]:
    """Tasks that read the same folder, under the name of the first of them."""
    groups: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    for name, task in tasks.items():
        groups.setdefault(first.setdefault(task.dataset.root, name), []).append(name)
    return groups


def expand(pattern: str) -> list[str]:
    """The pattern with `{a,b}` and `{01..20}` written out, as a shell does."""
    match = BRACES.search(pattern)
    if match is None:
        return [pattern]
    first, dots, last = match[1].partition("..")
    numbers = range(int(first), int(last) + 1) if dots else ()
    choices = [str(number).zfill(len(first)) for number in numbers] if dots else match[1].split(",")
    start, rest = pattern[: match.start()], expand(pattern[match.end() :])
    return [start + choice + end for choice in choices for end in rest]


def pattern_regex(pattern: str) -> re.Pattern[str]:
    """A pattern of relative paths as a regular expression for `fullmatch`."""
    *folders, name = pattern.split("/")
    parts = ["(?:[^/]+/)*" if folder == "**" else _segment(folder) + "/" for folder in folders]
    return re.compile("".join(parts) + _segment(name))


def _segment(text: str) -> str:
    return "[^/]*".join(re.escape(part) for part in text.split("*"))
