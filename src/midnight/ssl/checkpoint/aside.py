"""Progress of other configurations: kept beside a run's `checkpoints/`, by their keys, and found again by them.

`checkpoints.KEY/` has the checkpoints as they were, with the curves and the configuration of that time. Nothing here is
ever deleted: what is there already gives a new folder another number.
"""

import itertools
import logging
import shutil
from pathlib import Path

log = logging.getLogger(__name__)
COMPANIONS = ("metrics.jsonl", "config.yaml")
"""Files of the run that go along."""
CHECKPOINTS = "checkpoints"
CHECKPOINT = "step_" + "[0-9]" * 8


def last_step(folder: Path) -> int:
    """The newest checkpoint's micro-steps, by its name; 0 without one."""
    steps = sorted(folder.glob(CHECKPOINT))
    return int(steps[-1].name.removeprefix("step_")) if steps else 0


def set_aside(folder: Path, key: str) -> Path:
    """Move the checkpoints of another configuration beside; returns where they are."""
    for name in COMPANIONS:
        if (folder.parent / name).is_file():
            shutil.copy2(folder.parent / name, folder / name)
    label = key if key.isalnum() else "unknown"
    targets = (folder.with_name(f"{folder.name}.{label}{number}") for number in _numbers())
    target = next(path for path in targets if not path.exists())
    folder.replace(target)
    return target


def bring_back(folder: Path, key: str) -> bool:
    """Put the longest progress of a configuration back as `folder`, which must be absent; whether there was any."""
    found = [path for path in _kept(folder, key) if last_step(path)]
    if not found:
        return False
    best = max(found, key=last_step)
    for name in COMPANIONS:
        if (best / name).is_file():
            (best / name).replace(folder.parent / name)
    best.replace(folder)
    log.info("%s: the progress of this configuration, step %d, is found again", folder, last_step(folder))
    return True


def kept_step(folder: Path, key: str) -> int:
    """The longest progress of a configuration that was set aside; 0 if there is none."""
    return max(map(last_step, _kept(folder, key)), default=0)


def _kept(folder: Path, key: str) -> list[Path]:
    # `.stale-KEY` is what these folders were called before
    names = (f"{folder.name}.{key}*", f"{folder.name}.stale-{key}")
    return sorted(path for name in names for path in folder.parent.glob(name) if path.is_dir())


def _numbers() -> itertools.chain[str]:
    return itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
