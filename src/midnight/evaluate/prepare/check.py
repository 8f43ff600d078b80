"""Whether data sets are complete on disk: files are counted; md5s are compared only when asked for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from midnight.config import Evaluation
from midnight.config.pipeline import is_generated
from midnight.errors import MidnightError
from midnight.evaluate.entries import Task
from midnight.evaluate.labelled import read_labelled
from midnight.evaluate.prepare.files import count_files, listed_files, scan
from midnight.evaluate.prepare.resources import find_resources
from midnight.evaluate.prepare.rules import Download, Rules, group_tasks, load_rules, rules_for
from midnight.evaluate.registry import configured_tasks
from midnight.hashing import hash_file

State = Literal["complete", "incomplete", "absent"]
SHOWN = 4


@dataclass(frozen=True)
class DataSet:
    """A folder of data and what it must hold.

    Attributes:
        task: the first task that reads it, which names it and says where it comes from.
        tasks: names of all tasks that read it.
        root: the folder.
        rules: what it must hold.
    """

    task: Task
    tasks: tuple[str, ...]
    root: Path
    rules: Rules

    @property
    def page(self) -> str:
        """Where people find it, and its licence."""
        if is_generated(self.task.data):
            return "`make demo` generates it"
        licence = f" (licence: {self.task.licence})" if self.task.licence else ""
        hint = f": {self.rules.hint}" if self.rules.hint else ""
        if self.task.is_own:
            return f"correct evaluation.folders.{self.task.name}"
        return f"get it from {self.task.source or 'its owner'}{licence} and put it there{hint}"


@dataclass(frozen=True)
class Status:
    """What is there of a data set.

    Attributes:
        dataset: which.
        state: complete, incomplete (with problems) or absent (not one file).
        found: how many of the expected files are there (any files, where none are specified).
        expected: how many there should be; 0 where none are specified.
        size: bytes of all files in the folder.
        problems: a missing file, or a pattern with the number of files found.
        how: how to get what is missing.
    """

    dataset: DataSet
    state: State
    found: int
    expected: int
    size: int
    problems: tuple[str, ...]
    how: str

    @property
    def complete(self) -> bool:
        """Whether tasks can read it."""
        return self.state == "complete"

    @property
    def lacking(self) -> str:
        """The first problems, and how many others there are."""
        more = len(self.problems) - SHOWN
        return ", ".join(self.problems[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")

    @property
    def line(self) -> str:
        """Which folder, what is missing in it, what to do."""
        return f"task {self.dataset.task.name}: {self.dataset.root}: {self.state}: {self.lacking}; {self.how}"


def find_datasets(evaluation: Evaluation) -> list[DataSet]:
    """The data sets of a configuration's tasks.

    Raises:
        ConfigError: an unknown task or protocol, or a wrong entry in the registries.
    """
    tasks = configured_tasks(evaluation)
    rules = load_rules()
    return [
        DataSet(
            tasks[name],
            tuple(group),
            Path(evaluation.data_root, tasks[name].dataset.root),
            rules_for(tasks[name], rules),
        )
        for name, group in group_tasks(tasks).items()
    ]


def check(dataset: DataSet, verify: bool = False) -> Status:
    """What is there of a data set.

    Args:
        dataset: which.
        verify: also compare the md5 of files that have a published one.

    Raises:
        MidnightError: something in the folder can't be read.
    """
    sizes = scan(dataset.root)
    found, expected, problems = count_files(dataset.rules.needed, sizes)
    try:
        listed, unreadable = listed_files(dataset.root, dataset.rules.lists, sizes), []
    except MidnightError as error:  # of this data set alone: the others' rows are still shown
        listed, unreadable = set(), [str(error)]
    patterns = dataset.rules.patterns
    uncounted = {name for name in listed if not any(regex.fullmatch(name) for regex in patterns)}
    found, expected = found + len(uncounted & sizes.keys()), expected + len(uncounted)
    missing = sorted(listed - sizes.keys())
    problems = unreadable + missing + problems
    if not problems:
        problems = _deeper(dataset, verify) if sizes else ["no files"]
    state: State = "absent" if not sizes else "incomplete" if problems else "complete"
    how = _how(dataset, sizes, bool(missing)) if problems else ""
    return Status(
        dataset, state, found if expected else len(sizes), expected, sum(sizes.values()), tuple(problems), how
    )


def open_downloads(dataset: DataSet, sizes: Mapping[str, int]) -> dict[str, Download]:
    """The downloads whose files are not all there."""
    downloads = dataset.rules.downloads
    return {name: download for name, download in downloads.items() if count_files(download.needed(name), sizes)[2]}


def _how(dataset: DataSet, sizes: Mapping[str, int], listed_missing: bool) -> str:
    waiting = open_downloads(dataset, sizes)
    if listed_missing or not waiting or count_files(dataset.rules.files, sizes)[2]:
        return dataset.page
    size = sum(download.gb for download in waiting.values())
    return f"`midnight tasks prepare {dataset.task.name}` downloads it ({size:.1f} GB, {dataset.task.licence})"


def _deeper(dataset: DataSet, verify: bool) -> list[str]:
    """Problems beyond the number of files."""
    if dataset.task.kind == "hest":
        from midnight.evaluate.hest_data import read_folds, read_genes

        try:
            read_folds(dataset.root)
            read_genes(dataset.root)
        except MidnightError as error:
            return [str(error)]
    if dataset.task.kind == "folder":
        try:
            read_labelled(dataset.root).check()
        except (MidnightError, ValueError) as error:
            return [str(error)]
    return list(_wrong_md5s(dataset)) if verify else []


def _wrong_md5s(dataset: DataSet) -> Iterator[str]:
    for resource in find_resources(dataset.task, dataset.rules):
        path = dataset.root / resource.name
        if resource.md5 and path.is_file() and (md5 := hash_file(path, "md5")) != resource.md5:
            yield f"{resource.name} (md5 is {md5}, must be {resource.md5})"
