"""Which stage of the pipeline a rule belongs to."""

from collections.abc import Mapping

STAGES = {
    "slides": ("demo_slides", "pin_manifest", "fetch_slides", "fetch_again", "tried_again"),
    "tissue": ("segment_tissue", "join_tissue"),
    "tiles": ("list_tiles", "plan_tiles", "draw_tiles", "join_tiles"),
    "training": ("train", "init_model"),
    "evaluation": ("demo_benchmarks", "prepare_task", "embed", "score"),
    "features": ("embed_slides", "join_features"),
    "report": ("draw_curves", "draw_cohort", "draw_patches", "draw_tsne", "draw_gains", "tables", "report"),
}
TARGETS = ("all", "ablations")
"""Rules that only ask for what others make."""
OTHER = "other"
_of_rule = {rule: stage for stage, rules in STAGES.items() for rule in rules}


def stage_of(rule: str) -> str:
    """The stage's name; "other" for a rule that is not of this pipeline."""
    return _of_rule.get(rule, OTHER)


def count_stages(jobs: Mapping[str, int]) -> dict[str, int]:
    """Jobs per stage, in the order in which data walk; targets are not counted.

    Args:
        jobs: number of jobs by rule.
    """
    counts = dict.fromkeys([*STAGES, OTHER], 0)
    for rule, count in jobs.items():
        if rule not in TARGETS:
            counts[stage_of(rule)] += count
    return {stage: count for stage, count in counts.items() if count}
