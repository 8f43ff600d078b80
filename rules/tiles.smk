# Tiles drawn beforehand, for runs whose recipe has `tiles.predrawn`; runs that need the same tiles share one set.
# The tars are no declared outputs: Snakemake would delete those of a failed job, and a retry goes on after them.


rule plan_tiles:
    input:
        indices=lambda wildcards: set_indices(wildcards.tileset),
    output:
        layout.tiles("{tileset}", "plan.json"),
    log:
        layout.log("plan_tiles", "{tileset}"),
    benchmark:
        layout.benchmark("plan_tiles", "{tileset}")
    conda:
        CONDA
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        cohorts=lambda wildcards: canonical(dict(tile_sets[wildcards.tileset].cohorts)),
        tiles=lambda wildcards: settings(tile_sets[wildcards.tileset].tiles),
        draw=settings(cfg.draw),
        size=lambda wildcards: set_size(wildcards.tileset),
    message:
        "Planning {wildcards.tileset}: {params.size} (disk and time: see {log})"
    script:
        "../workflow/scripts/plan_tiles.py"


rule draw_tiles:
    input:
        indices=lambda wildcards: set_indices(wildcards.tileset),
        # ancient: a new measurement is no reason to draw again
        plan=ancient(layout.tiles("{tileset}", "plan.json")),
    output:
        layout.tiles("{tileset}", "parts", "{job}.parquet"),
    log:
        layout.log("draw_tiles", "{tileset}", "{job}"),
    benchmark:
        layout.benchmark("draw_tiles", "{tileset}", "{job}")
    conda:
        CONDA
    threads: cfg.draw.workers
    resources:
        mem_mb=1000 + 2000 * cfg.draw.workers,
        runtime=480,
    params:
        cohorts=lambda wildcards: canonical(dict(tile_sets[wildcards.tileset].cohorts)),
        tiles=lambda wildcards: settings(tile_sets[wildcards.tileset].tiles),
        per_shard=cfg.draw.tiles_per_shard,
        shards=lambda wildcards: list(
            tile_sets[wildcards.tileset].job_shards(
                int(wildcards.job), cfg.draw.shards_per_job
            )
        ),
    message:
        "Drawing tiles of {wildcards.tileset}, job {wildcards.job}"
    script:
        "../workflow/scripts/draw_tiles.py"


rule join_tiles:
    input:
        indices=lambda wildcards: set_indices(wildcards.tileset),
        parts=lambda wildcards: [
            layout.tiles(wildcards.tileset, "parts", f"{job:04d}.parquet")
            for job in range(
                tile_sets[wildcards.tileset].jobs(cfg.draw.shards_per_job)
            )
        ],
    output:
        layout.tiles("{tileset}", "index.arrow"),
    log:
        layout.log("join_tiles", "{tileset}"),
    benchmark:
        layout.benchmark("join_tiles", "{tileset}")
    conda:
        CONDA
    resources:
        # sorting 100 million places
        mem_mb=lambda wildcards: 4000
        + tile_sets[wildcards.tileset].predrawn.count * 250 // 1_000_000,
        runtime=120,
    params:
        cohorts=lambda wildcards: canonical(dict(tile_sets[wildcards.tileset].cohorts)),
        tiles=lambda wildcards: settings(tile_sets[wildcards.tileset].tiles),
        per_shard=cfg.draw.tiles_per_shard,
    message:
        "Indexing {wildcards.tileset}"
    script:
        "../workflow/scripts/join_tiles.py"
