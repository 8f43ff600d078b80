"""What a run's own losses say at its end."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from midnight.config import Recipe

LAST = 0.1
"""Share of the logged steps that is looked at [our choice]."""
FLAT = 0.995
"""Of the logarithm of the prototypes: a DINO loss above this has learned nothing [our choice]; the demo's ends at .96
to .99."""


def read_records(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def stayed_flat(records: Sequence[Mapping[str, Any]], recipe: Recipe) -> str | None:
    """A line that says so where DINO's loss ends at the logarithm of the prototypes, and what to change; else None.

    There the student predicts every prototype alike, for every tile.

    Args:
        records: lines of metrics.jsonl.
        recipe: the run's.
    """
    losses = [record["dino"] for record in records if record.get("dino") is not None]
    last = losses[-max(1, round(LAST * len(losses))) :]
    uniform = math.log(recipe.heads.prototypes)
    if not last or not recipe.loss.dino or (mean := sum(last) / len(last)) < FLAT * uniform:
        return None
    tiles = recipe.training.iterations * recipe.training.batch_size * recipe.training.gpus
    return (
        f"run {recipe.name}: DINO's loss ended at {mean:.2f}, the logarithm of {recipe.heads.prototypes:,} prototypes "
        f"is {uniform:.2f}: the CLS token learned next to nothing from {tiles:,} tiles. Take fewer heads.prototypes "
        "(one for some hundreds of tiles), a lower loss.teacher_temperature or more training.iterations; the recipe "
        "local-quick has values for short runs"
    )
