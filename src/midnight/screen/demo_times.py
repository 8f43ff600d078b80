"""How long the demo's jobs took once: a first guess of the time left, until this machine's own times are known."""

from collections.abc import Mapping, Sequence

SECONDS = {
    "demo_slides": 11.0,
    "demo_benchmarks": 31.0,
    "pin_manifest": 0.5,
    "fetch_slides": 1.0,
    "segment_tissue": 1.0,
    "join_tissue": 0.5,
    "train": 84.0,
    "init_model": 30.0,
    "embed": 28.0,
    "score": 89.0,
    "draw_cohort": 7.0,
    "draw_curves": 10.0,
    "draw_patches": 7.0,
    "draw_tsne": 31.0,
    "draw_gains": 10.0,
    "tables": 2.5,
    "report": 7.0,
}
"""Mean of a rule's jobs with config/demo.yaml on two cores of a server, with other work beside it."""
START = 2.5
"""Seconds that Snakemake takes to start a job."""
BOUNDS = 0.2, 5.0
"""How much faster or slower another machine, or a demo of another size, is taken to be."""


def is_demo(planned: Mapping[str, int]) -> bool:
    """Whether the jobs (numbers by rule) are those of a demo that runs for the first time."""
    return bool(planned.get("demo_slides") or planned.get("demo_benchmarks"))


def guess(rule: str, took: Mapping[str, Sequence[float]]) -> float | None:
    """Seconds of one job, scaled by the jobs that this run has done; None for an unknown rule.

    Args:
        rule: whose job.
        took: seconds of the jobs so far, by rule.
    """
    if rule not in SECONDS:
        return None
    known = {name: times for name, times in took.items() if name in SECONDS}
    usual = sum((SECONDS[name] + START) * len(times) for name, times in known.items())
    scale = sum(map(sum, known.values())) / usual if usual else 1.0
    return (SECONDS[rule] + START) * min(max(scale, BOUNDS[0]), BOUNDS[1])
