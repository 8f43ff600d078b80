"""How scores change when the scored images are perturbed: variants of tasks beside the tasks themselves.

The heads of a variant are those of its task, run by run, so differences are taken run by run as well: their standard
error is that of the differences, much smaller than that of either score.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from midnight.evaluate.entries import POOLINGS
from midnight.evaluate.plus_minus import standard_error
from midnight.report.columns import BY_KEY
from midnight.report.scores import Score, by_group, finite


@dataclass(frozen=True)
class Change:
    """A score under a perturbation, its difference to the unperturbed one, and that difference's standard error."""

    score: float | None
    difference: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class RobustnessRow:
    """One model on one task. changes: by perturbation, those that were scored."""

    label: str
    task: str
    score: float | None
    changes: Mapping[str, Change]


@dataclass(frozen=True)
class Robustness:
    """Rows of one kind of data, protocol and pooling, and the perturbations that they have between them."""

    data: str
    protocol: str
    pooling: str
    perturbations: tuple[str, ...]
    rows: tuple[RobustnessRow, ...]


def build_robustness(scores: Iterable[Score]) -> list[Robustness]:
    """Tables of all variants among the scores: real data first, CLS+Mean before CLS; none without variants."""
    tables = []
    for (data, protocol, pooling), known in by_group(scores).items():
        if variants := [score for score in known if score.variant_of]:
            names = tuple(dict.fromkeys(score.perturbation for score in variants))
            tables.append(Robustness(data, protocol, POOLINGS.get(pooling, pooling), names, _rows(variants, known)))
    return tables


def _rows(variants: Sequence[Score], known: Sequence[Score]) -> tuple[RobustnessRow, ...]:
    bases = {(score.model, score.size, score.task): score for score in known if not score.variant_of}
    sizes = {(score.model, score.size) for score in known}
    cells: dict[tuple[str, str, int], dict[str, Score]] = {}
    for score in variants:
        cells.setdefault((score.variant_of, score.model, score.size), {})[score.perturbation] = score
    rows = []
    for (task, model, size), found in sorted(cells.items(), key=lambda item: item[0][0]):
        base, label = bases.get((model, size, task)), next(iter(found.values())).label
        label += f"/{size}" if sum(other == model for other, _ in sizes) > 1 else ""
        heading = BY_KEY[base.column].long if base and base.column in BY_KEY else task
        changes = {name: compare(score, base) for name, score in found.items()}
        rows.append(RobustnessRow(label, heading, base.mean if base else None, changes))
    return tuple(rows)


def compare(score: Score, base: Score | None) -> Change:
    """A perturbed score beside the unperturbed one; without the latter, or a number, there is no difference."""
    if base is None or base.mean is None or score.mean is None:
        return Change(score.mean)
    perturbed, plain = score.record.get("values") or [], base.record.get("values") or []
    if len(perturbed) != len(plain) or not plain or None in map(finite, [*perturbed, *plain]):
        return Change(score.mean, score.mean - base.mean)
    differences = [a - b for a, b in zip(perturbed, plain, strict=True)]
    return Change(score.mean, statistics.fmean(differences), standard_error(differences))
