"""Does training help: each model against its random initialisation, in standard errors."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from midnight.evaluate.plus_minus import difference_in_errors
from midnight.report.columns import BY_KEY
from midnight.report.scores import Score

TRAINED = (None, "run", "dir", "weights")
"""Sources of models that are compared; None: of a model that the registry does not know."""


@dataclass(frozen=True)
class Comparison:
    """One task: a model's score and its baseline's, same pooling, protocol and data."""

    model: str
    label: str
    task: str
    pooling: str
    data: str
    protocol: str
    random: float
    random_error: float | None
    trained: float
    trained_error: float | None

    @property
    def difference(self) -> float:
        """Trained minus random."""
        return self.trained - self.random

    @property
    def in_errors(self) -> float | None:
        """The difference in standard errors; None when it has none."""
        return difference_in_errors(self.trained, self.trained_error, self.random, self.random_error)

    @property
    def verdict(self) -> str:
        """In words, at two standard errors."""
        if self.in_errors is None:
            return "no standard error"
        if abs(self.in_errors) <= 2:
            return "no clear difference"
        return "better" if self.in_errors > 0 else "worse"


def is_random(model: str, label: str, sources: Mapping[str, str]) -> bool:
    """Whether a model is a random initialisation: by its registry source, else by its name."""
    if model in sources:
        return sources[model] in ("init", "random")
    words = f"{model} {label}".lower().replace("-", " ").replace("_", " ").split()
    return bool({"random", "init", "initial", "(initial)", "(random)"} & set(words))


def compare_to_random(
    scores: Sequence[Score], sources: Mapping[str, str], models: Collection[str] | None = None
) -> list[Comparison]:
    """Every trained model against the random initialisation, per task and pooling.

    With several random models the one whose run the trained model shares by name is taken, else the first of the
    same size, else the first.

    Args:
        scores: all score records.
        sources: model: source in the registry (`init`, `run`, `eva`, …).
        models: only these trained models; all of the sources `TRAINED` by default.
    """
    scores = [score for score in scores if not score.variant_of]
    baselines = [score for score in scores if is_random(score.model, score.label, sources)]
    trained = [score for score in scores if not is_random(score.model, score.label, sources)]
    wanted = models if models is not None else {s.model for s in trained if sources.get(s.model) in TRAINED}
    pairs = ((score, _baseline(score, baselines)) for score in trained if score.model in wanted)
    return _comparisons((score, base) for score, base in pairs if base is not None)


def _baseline(score: Score, baselines: Sequence[Score]) -> Score | None:
    cell = (score.task, score.pooling, score.data, score.protocol)
    same = [b for b in baselines if (b.task, b.pooling, b.data, b.protocol) == cell and b.mean is not None]
    return max(same, key=lambda b: (_related(b.model, score.model), b.size == score.size), default=None)


def _related(baseline: str, model: str) -> bool:
    stem = baseline.replace("_", "-").removesuffix("-init").removesuffix("-random").removeprefix("random-")
    return bool(stem) and model.replace("_", "-").startswith(stem)


def _comparisons(pairs: Iterable[tuple[Score, Score]]) -> list[Comparison]:
    found = []
    for score, base in pairs:
        if score.mean is None or base.mean is None:
            continue
        column = BY_KEY.get(score.column)
        task = score.task if column is None or column.key == "hest" else column.long
        identity = (score.model, score.label, task, score.pooling, score.data, score.protocol)
        found.append(Comparison(*identity, base.mean, base.error, score.mean, score.error))
    return found
