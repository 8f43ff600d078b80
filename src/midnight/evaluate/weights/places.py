"""Where weights lie: the files of a folder, a snapshot of Hugging Face's cache, or a registry model's local copy."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from midnight.errors import MidnightError
from midnight.evaluate.weights.facts import read_object

EXPORT = ("teacher.safetensors", "model.json")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".torch")
CHECKPOINT = re.compile(r"step_\d+")


@dataclass(frozen=True)
class Place:
    """Files of weights, and the folder whose other files describe them, if there is one."""

    files: tuple[Path, ...]
    folder: Path | None


def is_export(folder: Path) -> bool:
    """Whether a folder is this project's own export."""
    return all((folder / name).is_file() for name in EXPORT)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint of a run of this project."""
    return folder.is_dir() and CHECKPOINT.fullmatch(folder.name) is not None


def find_files(path: Path) -> Place:
    """The weights of a file or folder.

    Raises:
        MidnightError: there are none, or it can't be told which of several are meant.
    """
    if path.is_file():
        described = path.name in WHOLE
        return Place((path,), path.parent if described else None)
    if not path.is_dir():
        raise MidnightError(f"{path}: no such file or folder of weights")
    folder = snapshot_of(path) or path
    for name in INDEXES:
        if (folder / name).is_file():
            return Place(_pieces(folder / name), folder)
    for name in WHOLE:
        if (folder / name).is_file():
            return Place((folder / name,), folder)
    found = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if len(found) == 1:
        return Place((found[0],), folder)
    raise MidnightError(f"{path}: {_what_instead(path, found)}")


def _what_instead(path: Path, found: list[Path]) -> str:
    if found:
        return f"has several files of weights ({', '.join(file.name for file in found)}); name one of them"
    checkpoints = sorted(path.glob("checkpoints/step_*"))
    if checkpoints:
        return f"a run that has not ended; name one of its checkpoints, e.g. {checkpoints[-1]}"
    return f"no weights in it ({', '.join((EXPORT[0], *WHOLE))}, or one file *{', *'.join(SUFFIXES)})"


def _pieces(index: Path) -> tuple[Path, ...]:
    """The files of weights that were saved in several.

    Raises:
        MidnightError: the index can't be read, or a file is missing.
    """
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise MidnightError(f"{index}: no weight_map in it; download the folder again")
    files = tuple(index.parent / name for name in sorted(set(map(str, names.values()))))
    if missing := [file for file in files if not file.is_file()]:
        raise MidnightError(f"{missing[0]}: missing, but {index.name} names it; download the folder again")
    return files


def snapshot_of(folder: Path) -> Path | None:
    """The snapshot of a repository's folder in Hugging Face's cache: that of `main`, else the newest; None if none."""
    snapshots = [path for path in folder.glob("snapshots/*") if path.is_dir()]
    main = folder / "refs" / "main"
    if main.is_file() and (named := folder / "snapshots" / main.read_text(encoding="utf-8").strip()) in snapshots:
        return named
    return max(snapshots, key=lambda path: path.stat().st_mtime, default=None)


def find_stored(folders: list[Path], name: str, repository: str | None) -> Path | None:
    """A registry model's weights in one of these folders; case does not matter. None if there are none.

    They are looked for by the entry's name, and by the repository's ("UNI", "MahmoodLab/UNI", or as in Hugging Face's
    cache, "models--MahmoodLab--UNI"), as a folder or a file.
    """
    for folder in folders:
        for entry in _entries(folder):
            if _stem(entry, folder) in _names(name, repository) and _has_weights(entry):
                return entry
    return None


def cache_folder() -> Path:
    """Hugging Face's cache of repositories on this machine."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def _names(name: str, repository: str | None) -> set[str]:
    names = [name, *([repository, repository.split("/")[-1]] if repository else [])]
    cached = [f"models--{repository.replace('/', '--')}"] if repository else []
    return {known.lower() for known in names + cached}


def _entries(folder: Path) -> Iterator[Path]:
    """What lies in a folder, and in its sub-folders."""
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        yield entry
        if entry.is_dir() and not entry.name.startswith("models--"):
            yield from sorted(entry.iterdir())


def _stem(entry: Path, folder: Path) -> str:
    relative = entry.relative_to(folder).as_posix()
    return (relative.removesuffix(entry.suffix) if entry.suffix in SUFFIXES else relative).lower()


def _has_weights(entry: Path) -> bool:
    if entry.is_file():
        return entry.suffix in SUFFIXES
    folder = snapshot_of(entry) or entry
    return any(file.suffix in SUFFIXES or file.name in INDEXES for file in folder.iterdir())
