"""The ablation table (the paper's Table 3) from a run's own ablation models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from midnight.evaluate import plus_minus
from midnight.report.columns import HEST, KEYS
from midnight.report.tables import Cell, Row, Table

PREFIX = "ablation"
REGULARIZERS = {"kde": "KDE", "koleo": "KoLeo", "none": "none"}


@dataclass(frozen=True)
class Ablation:
    """One ablation model: its data, what it has of the HSV filter, a regularizer and HED, the eva average and HEST."""

    label: str
    cohorts: tuple[str, ...]
    hsv: bool
    regularizer: str
    hed: bool
    eva: plus_minus.Average | None
    hest: Cell


def build_ablations(
    tables: Sequence[Table], runs: Mapping[str, Path], config: Mapping[str, Any], model_runs: Mapping[str, str]
) -> list[Ablation]:
    """CLS+Mean rows of models whose recipe is called `ablation-*`, in the order of the configuration.

    Args:
        tables: from `build_tables`.
        runs: run: `models/{run}/`, whose config.yaml is the resolved recipe.
        config: the resolved pipeline configuration.
        model_runs: model: run; a model without an entry is taken to be called like its run.
    """
    declared = dict(config.get("runs") or {})
    found: list[tuple[int, Ablation]] = []
    for table in tables:
        for row in table.rows:
            run = model_runs.get(row.model, row.model)
            recipe = str((declared.get(run) or {}).get("recipe", ""))
            if row.pooling == "cls_mean" and run in runs and recipe.startswith(PREFIX):
                cohorts = tuple((declared[run].get("cohorts") or {}).keys())
                found.append((list(declared).index(run), _ablation(row, cohorts, read_recipe(runs[run]))))
    return [ablation for _, ablation in sorted(found, key=lambda pair: pair[0])]


def read_recipe(folder: Path) -> dict[str, Any]:
    """The resolved recipe of a run; empty when it has none."""
    path = Path(folder) / "config.yaml"
    if not path.is_file():
        return {}
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content = content if isinstance(content, dict) else {}
    nested = content.get("recipe")
    return nested if isinstance(nested, dict) else content


def _ablation(row: Row, cohorts: tuple[str, ...], recipe: Mapping[str, Any]) -> Ablation:
    tiles, loss = recipe.get("tiles") or {}, recipe.get("loss") or {}
    cells = [row.cells[key] for key in KEYS if key != HEST]
    eva = plus_minus.average([c.value for c in cells], [c.error for c in cells], len(cells))
    hed = float(tiles.get("hed_sigma") or 0) > 0
    regularizer = REGULARIZERS.get(str(loss.get("regularizer")), "")
    return Ablation(row.label, cohorts, tiles.get("hsv_filter") is not None, regularizer, hed, eva, row.cells[HEST])
