"""Makes a task's data set ready: checks it, downloads what is missing where that needs no form, or says what to do."""

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from midnight.atomic import write_json
from midnight.config import Evaluation
from midnight.errors import MidnightError, ServiceError
from midnight.evaluate.prepare.check import DataSet, Status, check, find_datasets, open_downloads
from midnight.evaluate.prepare.fetch import RETRIES, Retries, fetch, writing
from midnight.evaluate.prepare.files import count_files, is_packed, scan
from midnight.evaluate.prepare.resources import Resource, find_resources
from midnight.evaluate.prepare.rules import Download
from midnight.evaluate.prepare.unpack import BadArchiveError, unpack
from midnight.hashing import hash_file
from midnight.lease import hold

LOG = logging.getLogger(__name__)
STAGE = ".download"
LOCK = ".download.lock"
MARKS = (".midnight", "lock")
"""Files by which the hidden folder is known to be ours; earlier versions left the second one."""


def prepare_task(name: str, evaluation: Evaluation, output: Path) -> None:
    """Make one data set ready for the workflow and write what is there.

    Args:
        name: the data set: the first task that reads it.
        evaluation: the configuration's tasks, their folder, and whether to download.
        output: JSON with the number of files and bytes; the same for the same data.

    Raises:
        MidnightError: it is not complete; names this data set's missing files and all other data sets to be fetched.
    """
    datasets = find_datasets(evaluation)
    dataset = next(dataset for dataset in datasets if dataset.task.name == name)
    status = prepare(dataset) if evaluation.download else check(dataset)
    if not status.complete:
        others = [other for other in datasets if other is not dataset and _needs_hand(other, evaluation.download)]
        also = ", ".join(other.task.name for other in others)
        raise MidnightError(status.line + (f"; also missing: {also} (see `midnight tasks status`)" if also else ""))
    write_json(output, {"tasks": dataset.tasks, "files": status.found, "bytes": status.size})


def _needs_hand(dataset: DataSet, download: bool) -> bool:
    """Whether a person must do something about a data set."""
    status = check(dataset)
    return not status.complete and (status.how == dataset.page or not download)


def prepare(dataset: DataSet, retries: Retries = RETRIES) -> Status:
    """Download what is missing of a data set, where eva's class knows an address; what is there stays as it is.

    Everything gathers in a hidden folder within the data set's own (so that links and mounts do no harm) and is
    moved to its place, whole and checked, at the end. An interrupted run goes on where it ended.

    Raises:
        MidnightError: no answer, a wrong md5, an unsafe or damaged archive, wrong content, a full disk.
    """
    if dataset.rules.downloads and open_downloads(dataset, scan(dataset.root)):
        resources = find_resources(dataset.task, dataset.rules)
        with _stage(dataset.root) as stage:
            waiting = open_downloads(dataset, scan(dataset.root))  # again: now nobody else changes it
            for resource in resources:
                if resource.name in waiting:
                    _refuse_halves(dataset, waiting[resource.name], resource)
                    _obtain(dataset, resource, waiting[resource.name], stage, retries)
    return check(dataset)


def _refuse_halves(dataset: DataSet, download: Download, resource: Resource) -> None:
    """Before hours of download: what an earlier unpacking left unfinished would be in the way."""
    for name in {pattern.split("/")[0] for pattern in download.needed(resource.name)}:
        path = dataset.root / name
        if "*" not in name and path.exists():
            found, expected, _ = count_files(download.needed(resource.name), scan(dataset.root))
            raise _in_the_way(path, f"is there, but with {found:,} of {expected:,} files")


def _in_the_way(path: Path, what: str) -> MidnightError:
    return MidnightError(f"{path}: {what}; move it away or delete it, then run again")


@contextlib.contextmanager
def _stage(root: Path) -> Iterator[Path]:
    """The hidden folder, which one process uses at a time, others wait; removed when the block ends well."""
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    with hold(root / LOCK):
        stage = root / STAGE
        with writing(root):
            _mark(stage)
        yield stage
        # the mark last: by it the next call knows the folder
        shutil.rmtree(stage / "content", ignore_errors=True)
        shutil.rmtree(stage, ignore_errors=True)


def _mark(stage: Path) -> None:
    """Make the hidden folder; one that was not made here is a person's own.

    Raises:
        MidnightError: it is.
    """
    stage.mkdir(exist_ok=True)
    if any(stage.iterdir()) and not any((stage / name).exists() for name in MARKS):
        raise _in_the_way(stage, "is not from a download of this project and would be removed after one")
    (stage / MARKS[0]).touch()


def _obtain(dataset: DataSet, resource: Resource, download: Download, stage: Path, retries: Retries) -> None:
    """One file from the web, checked, unpacked, checked again, moved into place."""
    by_hand = dataset.root / resource.file_name
    archive = by_hand if by_hand.is_file() else stage / resource.file_name
    if not archive.exists():
        LOG.info("%s: %.1f GB, licence %s: %s", resource.name, download.gb, dataset.task.licence, resource.url)
        try:
            fetch(resource.url, archive, retries)
        except ServiceError as error:
            raise ServiceError(f"{error}, or put {resource.file_name} into {dataset.root} by hand") from error
    content = stage / "content"
    try:
        _open(archive, content, resource, download.needed(resource.name))
    except BadArchiveError as error:
        shutil.rmtree(content, ignore_errors=True)
        if archive is by_hand:
            raise BadArchiveError(f"{error}; replace it, then run again") from error
        archive.unlink(missing_ok=True)
        raise BadArchiveError(f"{error}; removed: run again to fetch it anew") from error
    _install(content, dataset.root)
    if archive is not by_hand:
        archive.unlink()


def _open(archive: Path, content: Path, resource: Resource, needed: Mapping[str, int]) -> None:
    """Bring what is in a file from the web into the new folder `content`, with the published md5 and all its files."""
    if not resource.gzipped:
        _check_md5(archive, resource)
    with writing(content.parent):
        shutil.rmtree(content, ignore_errors=True)
        if is_packed(archive):
            unpack(archive, content)
        else:
            content.mkdir()
            shutil.copy(archive, content)
    if resource.gzipped:
        _check_md5(content / resource.name, resource)
    if problems := count_files(needed, scan(content))[2]:
        raise BadArchiveError(f"{archive}: does not hold what it should: {', '.join(problems[:4])}")


def _check_md5(path: Path, resource: Resource) -> None:
    if resource.md5 and (md5 := hash_file(path, "md5")) != resource.md5:
        raise BadArchiveError(f"{path}: md5 is {md5}, published is {resource.md5}")


def _install(content: Path, root: Path) -> None:
    for entry in sorted(content.iterdir()):
        if (root / entry.name).exists():
            raise _in_the_way(root / entry.name, f"is in the way of the one that was unpacked in {content}")
    with writing(root):
        for entry in sorted(content.iterdir()):
            entry.rename(root / entry.name)
