# Which shards a cohort has, and which of them have slides that a run tries again. No rules.
import functools

from midnight.slides.again import has_unavailable, next_attempt
from midnight.slides.sharding import cut, cut_manifest, digest


def pinned(cohort):
    """The cohort's manifest; for an unpinned cohort this waits for the checkpoint that asks for it."""
    return checkpoints.pin_manifest.get(cohort=cohort).output[0]


def shards(cohort):
    """Slides by the name of their shard."""
    if planned[cohort] is None:
        return cut_manifest(pinned(cohort), cfg.shard_size)
    return planned_shards(cohort)


@functools.cache
def planned_shards(cohort):
    return cut(planned[cohort], cfg.shard_size)


@functools.cache
def planned_digest(cohort, shard):
    return digest(planned_shards(cohort).get(shard, []))


def shard_digest(wildcards):
    """Changes when, and only when, the shard's slides change."""
    if planned[wildcards.cohort] is None:
        return digest(shards(wildcards.cohort).get(wildcards.shard, []))
    return planned_digest(wildcards.cohort, wildcards.shard)


@functools.cache
def unavailable():
    """Shards of earlier runs with slides that could not be had then, by cohort, and the number of this attempt."""
    found = [
        (cohort, shard)
        for cohort in cfg.cohorts
        for shard in known_shards(cohort)
        if has_unavailable(layout.slides(cohort, shard))
    ]
    return next_attempt(layout.again()), found


def known_shards(cohort):
    """As `shards`; none while the manifest is still to be made."""
    if planned[cohort] is None and not Path(layout.manifest(cohort)).exists():
        return {}
    if planned[cohort] is None:
        return cut_manifest(layout.manifest(cohort), cfg.shard_size)
    return planned_shards(cohort)


def tried_again():
    """Nothing, once slides that earlier runs could not have were tried again; only then are other jobs planned.

    So that a try that brings nothing makes nothing anew: jobs that wait for another are run, whatever it changes.
    """
    attempt, found = unavailable() if workflow.is_main_process else ("", [])
    if found:
        checkpoints.tried_again.get(attempt=attempt)
        # here too, since Snakemake follows only checkpoints of the job that waited for this one
        for cohort in cfg.cohorts:
            if planned[cohort] is None:
                pinned(cohort)
    return []
