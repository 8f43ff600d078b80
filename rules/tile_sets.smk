# Which sets of tiles are drawn beforehand, and by which runs they are read. No rules.


def drawn_tiles(run):
    """The index of the tiles that a run reads; none where it draws them from the slides while training."""
    return [layout.tiles(run_sets[run].name, "index.arrow")] if run in run_sets else []


def set_indices(name):
    """The tissue indexes of the cohorts of a set of tiles."""
    return [layout.tissue_index(cohort) for cohort, _ in tile_sets[name].cohorts]


def set_size(name):
    tile_set = tile_sets[name]
    count, jobs = tile_set.predrawn.count, tile_set.jobs(cfg.draw.shards_per_job)
    return f"{count:,} tiles in {tile_set.shards:,} shards, {jobs:,} jobs"
