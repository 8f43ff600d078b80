"""Where eva's classes get their data from: names, addresses and md5s, read from the classes themselves."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from midnight.errors import ConfigError
from midnight.evaluate.entries import Task
from midnight.evaluate.prepare.rules import Rules

DRIVE = re.compile(r"https://drive\.google\.com/file/d/([\w-]+)/.*")


@dataclass(frozen=True)
class Resource:
    """A file to download.

    Attributes:
        name: the file, or the archive that brings the files.
        url: its address.
        md5: its published md5.
        gzipped: the address gives `name` compressed by gzip; the md5 is that of `name`.
    """

    name: str
    url: str
    md5: str | None = None
    gzipped: bool = False

    @property
    def file_name(self) -> str:
        """Name of what comes from the address."""
        return self.name + ".gz" if self.gzipped else self.name


def find_resources(task: Task, rules: Rules) -> list[Resource]:
    """The downloads of a data set, with the addresses and md5s that eva's class of it carries.

    Raises:
        ConfigError: the class has no such download.
    """
    if not rules.downloads:
        return []
    known = _known(task.dataset.class_path)
    if missing := sorted(set(rules.downloads) - set(known)):
        raise ConfigError(
            f"config/datasets.yaml: {task.dataset.class_path} has no download {missing[0]!r}; it has: "
            + ", ".join(known)
        )
    return [_resource(known[name], download.md5) for name, download in rules.downloads.items()]


def _known(class_path: str) -> dict[str, Any]:
    from eva.vision.data.datasets.structs import DownloadResource

    from midnight.evaluate.images import find_class

    cls = find_class(class_path)
    values = [getattr(cls, name) for name in dir(cls)]
    items = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return {item.filename: item for item in items if isinstance(item, DownloadResource)}


def _resource(item: Any, md5: str | None) -> Resource:
    gzipped = urlsplit(item.url).path.endswith(f"/{item.filename}.gz")
    md5 = item.md5.removeprefix("md5:") if item.md5 else md5
    return Resource(item.filename, direct_url(item.url), md5, gzipped)


def direct_url(url: str) -> str:
    """The address of the file itself where `url` is a page of Google Drive about it."""
    match = DRIVE.fullmatch(url)
    return f"https://drive.usercontent.google.com/download?id={match[1]}&export=download&confirm=t" if match else url
