# Features of whole slides for multiple-instance learning, shard by shard, then one table per model and cohort.
# The slides' files are no declared outputs: Snakemake would delete those of a failed job, and a retry goes on after them.


rule embed_slides:
    input:
        model=lambda wildcards: model_files(wildcards.model),
        tissue=layout.tissue("{cohort}", "{shard}"),
    output:
        layout.features("{model}", "{cohort}", "{shard}.tsv"),
    log:
        layout.log("embed_slides", "{model}", "{cohort}", "{shard}"),
    benchmark:
        layout.benchmark("embed_slides", "{model}", "{cohort}", "{shard}")
    conda:
        CONDA
    threads: max(1, cfg.evaluation.workers)
    resources:
        mem_mb=32_000,
        runtime=1440,
    params:
        model=lambda wildcards: settings(known_models[wildcards.model]),
        features=feature_params(),
        tissue=tissue_params(),
    message:
        "Embedding slides of {wildcards.cohort} by {wildcards.model}, shard {wildcards.shard}"
    script:
        "../workflow/scripts/embed_slides.py"


rule join_features:
    input:
        lambda wildcards: [
            layout.features(wildcards.model, wildcards.cohort, f"{shard}.tsv")
            for shard in shards(wildcards.cohort)
        ],
    output:
        layout.features("{model}", "{cohort}", "slides.tsv"),
    log:
        layout.log("join_features", "{model}", "{cohort}"),
    benchmark:
        layout.benchmark("join_features", "{model}", "{cohort}")
    conda:
        CONDA
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "Joining the table of features of {wildcards.cohort} by {wildcards.model}"
    script:
        "../workflow/scripts/join_features.py"
