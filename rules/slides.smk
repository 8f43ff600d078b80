# Slides: query and pin a manifest, then download, check and quarantine shard by shard; try again what was unavailable.


checkpoint pin_manifest:
    input:
        lambda wildcards: manifest_sources(wildcards.cohort),
    output:
        layout.manifest("{cohort}"),
    log:
        layout.log("pin_manifest", "{cohort}"),
    benchmark:
        layout.benchmark("pin_manifest", "{cohort}")
    conda:
        CONDA
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        cohort=lambda wildcards: pinned_params(wildcards.cohort),
        filters=settings(cfg.gdc.filters),
    message:
        "Pinning the manifest of {wildcards.cohort}"
    script:
        "../workflow/scripts/pin_manifest.py"


rule fetch_slides:
    input:
        # ancient: a shard is fetched again when its own slides change (params.digest), not with every new pin
        manifest=ancient(layout.manifest("{cohort}")),
    output:
        shard=layout.shard("{cohort}", "{shard}"),
        slides=layout.slides("{cohort}", "{shard}"),
    log:
        layout.log("fetch_slides", "{cohort}", "{shard}"),
    benchmark:
        layout.benchmark("fetch_slides", "{cohort}", "{shard}")
    conda:
        CONDA
    resources:
        mem_mb=2000,
        runtime=1440,
        downloads=1,
    params:
        digest=shard_digest,
        raw=lambda wildcards: layout.raw(wildcards.cohort),
    message:
        "Fetching slides of {wildcards.cohort}, shard {wildcards.shard}"
    script:
        "../workflow/scripts/fetch_slides.py"


# Slides that an earlier run could not have. The shard's table is no declared output: it is written only where something
# has changed, so that what is made from it stays as it is otherwise.
rule fetch_again:
    output:
        layout.again("{attempt}", "{cohort}", "{shard}.txt"),
    log:
        layout.log("fetch_again", "{cohort}", "{shard}-{attempt}"),
    conda:
        CONDA
    resources:
        mem_mb=2000,
        runtime=1440,
        downloads=1,
    params:
        shard=lambda wildcards: layout.shard(wildcards.cohort, wildcards.shard),
        slides=lambda wildcards: layout.slides(wildcards.cohort, wildcards.shard),
        raw=lambda wildcards: layout.raw(wildcards.cohort),
    message:
        "Trying again unavailable slides of {wildcards.cohort}, shard {wildcards.shard}"
    script:
        "../workflow/scripts/fetch_again.py"


checkpoint tried_again:
    input:
        lambda wildcards: [
            layout.again(wildcards.attempt, cohort, f"{shard}.txt")
            for cohort, shard in unavailable()[1]
        ],
    output:
        touch(layout.again("{attempt}", "done")),
    message:
        "Unavailable slides were tried again; now the rest is planned"
