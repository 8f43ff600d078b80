# Tissue masks on thumbnails, shard by shard, then one index per cohort: what training reads.


rule segment_tissue:
    input:
        slides=layout.slides("{cohort}", "{shard}"),
    output:
        layout.tissue("{cohort}", "{shard}"),
    log:
        layout.log("segment_tissue", "{cohort}", "{shard}"),
    benchmark:
        layout.benchmark("segment_tissue", "{cohort}", "{shard}")
    conda:
        CONDA
    threads: cfg.tissue.workers
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        tissue=tissue_params(),
    message:
        "Segmenting tissue of {wildcards.cohort}, shard {wildcards.shard}"
    script:
        "../workflow/scripts/segment_tissue.py"


rule join_tissue:
    input:
        lambda wildcards: [
            layout.tissue(wildcards.cohort, shard)
            for shard in shards(wildcards.cohort)
        ],
    output:
        index=layout.tissue_index("{cohort}"),
        masks=layout.tissue_masks("{cohort}"),
        page=layout.tissue_page("{cohort}"),
    log:
        layout.log("join_tissue", "{cohort}"),
    benchmark:
        layout.benchmark("join_tissue", "{cohort}")
    conda:
        CONDA
    resources:
        mem_mb=8000,
        runtime=60,
    message:
        "Joining the tissue index of {wildcards.cohort}"
    script:
        "../workflow/scripts/join_tissue.py"
