"""Score records as the report reads them."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from midnight.errors import MidnightError
from midnight.evaluate.entries import POOLINGS
from midnight.evaluate.plus_minus import standard_error

if TYPE_CHECKING:
    from midnight.ssl.exports.readme import Result


@dataclass(frozen=True)
class Score:
    """One cell: a model at a size and pooling on one task, over several runs or folds.

    `mean`, `stdev` and `error` (standard error over runs) are None when they are not finite numbers.
    """

    model: str
    label: str
    size: int
    pooling: str
    task: str
    column: str
    metric: str
    mean: float | None
    stdev: float | None
    error: float | None
    n_runs: int
    protocol: str
    data: str
    record: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def variant_of(self) -> str:
        """The task whose scored images were perturbed for this score; empty for any other score."""
        return str((self.record.get("extra") or {}).get("variant_of", ""))

    @property
    def perturbation(self) -> str:
        """What was done to the images, in words; empty where nothing was."""
        return str((self.record.get("extra") or {}).get("perturbation", ""))


def by_group(items: Iterable[Any]) -> dict[tuple[str, str, str], list[Any]]:
    """Scores, or what is made of scores, by (data, protocol, pooling): real data first, CLS+Mean before CLS."""
    groups: dict[tuple[str, str, str], list[Any]] = {}
    for item in items:
        groups.setdefault((item.data, item.protocol, item.pooling), []).append(item)
    place = {pooling: i for i, pooling in enumerate(POOLINGS)}
    return dict(sorted(groups.items(), key=lambda item: (item[0][0] != "real", item[0][1], place.get(item[0][2], 9))))


def finite(value: Any) -> float | None:
    """`value` as a float, None when it is absent, not a number, NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def parse_score(record: Mapping[str, Any], name: str = "score record") -> Score:
    """A record of `scores/{model}/{size}/{pooling}/{task}.json` as a Score.

    Raises:
        MidnightError: a field that names the cell is missing.
    """
    try:
        values = [value for value in map(finite, record.get("values") or []) if value is not None]
        error = finite(record.get("sem"))
        return Score(
            model=str(record["model"]),
            label=str(record.get("label") or record["model"]),
            size=int(record["size"]),
            pooling=str(record["pooling"]),
            task=str(record["task"]),
            column=str(record.get("column") or record["task"]).lower(),
            metric=str(record.get("metric") or ""),
            mean=finite(record["mean"]),
            stdev=finite(record.get("stdev")),
            error=standard_error(values) if error is None else error,
            n_runs=int(record.get("n_runs") or len(values)),
            protocol=str(record["protocol"]),
            data=str(record["data"]),
            record=record,
        )
    except (KeyError, TypeError, ValueError) as error_:
        raise MidnightError(f"{name}: not a score record ({error_!r}); rerun the rule that wrote it") from error_


def load_scores(paths: Iterable[str | Path]) -> list[Score]:
    """Read score records, in the order of `paths`.

    Raises:
        MidnightError: a file is absent, not JSON or not a score record.
    """
    return [_load(Path(path)) for path in paths]


def _load(path: Path) -> Score:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MidnightError(f"{path}: can't be read as a score record: {error}") from error
    if not isinstance(record, dict):
        raise MidnightError(f"{path}: not a score record but a {type(record).__name__}; rerun the rule that wrote it")
    return parse_score(record, str(path))


def results_of(run: str | Path) -> "list[Result]":
    """The scores of a training run's folder, `RESULTS/models/RUN`, for its model card; perturbed images left out.

    Raises:
        MidnightError: a score record can't be read.
    """
    from midnight.ssl.exports.readme import Result

    folder = Path(run).resolve()
    found = load_scores(sorted((folder.parent.parent / "scores" / folder.name).glob("*/*/*.json")))
    return [
        Result(score.task, score.size, score.pooling, score.metric, score.mean, score.protocol, score.data)
        for score in found
        if score.mean is not None and not score.variant_of
    ]
