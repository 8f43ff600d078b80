"""Segments: runs that went on with other values in the middle, by `midnight train RUN --continue-with KEY=VALUE`.

`segments.json` in a run's folder says, by the key that a configuration has by itself, what was done before with other
values. The record is part of the run's key and of its config.yaml, so weights that two sets of values made never count
as those of one. Light: the workflow imports it at its start.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from midnight.errors import MidnightError
from midnight.ssl.checkpoint.run_key import SEGMENTS, run_key

FILE = "segments.json"
OTHER_NETWORK = ("backbone.", "heads.", "crops.global_size", "loss.centering")
"""Values that a checkpoint's tensors depend on; not so `backbone.drop_path`."""
OTHER_DATA = ("cohorts", "init_from")


def with_segments(config: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """A run's configuration with what was done before it, if it once went on from other values.

    Args:
        config: as `resolved_config` makes it, or of an earlier config.yaml.
        output: the run's folder.

    Raises:
        MidnightError: the record can't be read.
    """
    alone = {name: value for name, value in config.items() if name not in (SEGMENTS, "hash")}
    found = read_segments(output).get(run_key(alone), [])
    return alone | ({SEGMENTS: found} if found else {})


def read_segments(output: Path) -> dict[str, list[dict[str, Any]]]:
    """By the key of a configuration by itself, its segments: `until` (micro-steps), `key` of then, what `changed`.

    Raises:
        MidnightError: the file can't be read.
    """
    path = output / FILE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise MidnightError(f"{path}: can't be read ({error}); restore it, or move {output} away") from error


def in_the_way(changed: Iterable[str]) -> list[str]:
    """Those of the `differences` between two configurations with which a run can't go on."""
    return [
        line
        for line in changed
        if line.startswith((*OTHER_NETWORK, *OTHER_DATA)) and not line.startswith("backbone.drop_path")
    ]


def told(segments: Iterable[Mapping[str, Any]]) -> list[str]:
    """`at step 200 with optimizer.base_lr 0.001 → 0.0005` for each segment's end."""
    return [f"at step {segment['until']:,} with {'; '.join(segment['changed'])}" for segment in segments]
