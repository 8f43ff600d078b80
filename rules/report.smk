# Figures, tables and the page: from score records, tissue indices, training metrics and the published tables.


rule draw_curves:
    input:
        layout.model("{run}", "model.json"),
    output:
        layout.figure("curves-{run}.svg"),
    log:
        layout.log("draw_curves", "{run}"),
    benchmark:
        layout.benchmark("draw_curves", "{run}")
    conda:
        CONDA
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "Drawing the training curves of {wildcards.run}"
    script:
        "../workflow/scripts/draw_curves.py"


rule draw_cohort:
    input:
        index=layout.tissue_index("{cohort}"),
    output:
        tiles=layout.figure("tiles-{cohort}.png"),
        stain=layout.figure("stain-{cohort}.png"),
        tissue=layout.figure("tissue-{cohort}.png"),
    log:
        layout.log("draw_cohort", "{cohort}"),
    benchmark:
        layout.benchmark("draw_cohort", "{cohort}")
    conda:
        CONDA
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        tiles=lambda wildcards: cohort_tiles(wildcards.cohort),
        seed=cfg.seed,
    message:
        "Drawing tiles and masks of {wildcards.cohort}"
    script:
        "../workflow/scripts/draw_cohort.py"


rule draw_patches:
    input:
        models=[file for model in own_models() for file in model_files(model)],
        index=[layout.tissue_index(cohort) for cohort in list(cfg.cohorts)[:1]],
    output:
        layout.figure("pca-models.png"),
    log:
        layout.log("draw_patches"),
    benchmark:
        layout.benchmark("draw_patches")
    conda:
        CONDA
    resources:
        mem_mb=16_000,
        runtime=60,
    params:
        models={model: models[model].label for model in own_models()},
        tiles=cohort_tiles(next(iter(cfg.cohorts), None)),
        seed=cfg.seed,
    message:
        "Drawing principal components of the patch tokens"
    script:
        "../workflow/scripts/draw_patches.py"


rule draw_tsne:
    input:
        [
            layout.embedding_index(model, str(models[model].sizes[0]), "{task}")
            for model in compared_models()
        ],
    output:
        layout.figure("tsne-{task}.png"),
    log:
        layout.log("draw_tsne", "{task}"),
    benchmark:
        layout.benchmark("draw_tsne", "{task}")
    conda:
        CONDA
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        labels=[models[model].label for model in compared_models()],
        seed=cfg.seed,
    message:
        "Drawing t-SNE of {wildcards.task}"
    script:
        "../workflow/scripts/draw_tsne.py"


rule draw_gains:
    input:
        all_scores(),
    output:
        layout.figure("gains-scores.svg"),
    log:
        layout.log("draw_gains"),
    benchmark:
        layout.benchmark("draw_gains")
    conda:
        CONDA
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "Drawing trained against random"
    script:
        "../workflow/scripts/draw_gains.py"


rule tables:
    input:
        all_scores(),
    output:
        expand(
            layout.table("{name}.{form}"),
            name=["table2", "tablea1", "further"],
            form=["csv", "md", "tex"],
        ),
    log:
        layout.log("tables"),
    benchmark:
        layout.benchmark("tables")
    conda:
        CONDA
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        tasks=list(tasks),
    message:
        "Writing the tables"
    script:
        "../workflow/scripts/tables.py"


rule report:
    input:
        scores=all_scores(),
        tables=rules.tables.output,
        slides=lambda wildcards: [
            layout.slides(cohort, shard)
            for cohort in cfg.cohorts
            for shard in shards(cohort)
        ],
        tissue=[layout.tissue_index(cohort) for cohort in cfg.cohorts],
        manifests=[layout.manifest(cohort) for cohort in cfg.cohorts],
        tile_lists=sorted(
            {
                layout.tile_list(name)
                for run in cfg.runs.values()
                for name in run.tile_folders
            }
        ),
        runs=[layout.model(run, "model.json") for run in cfg.runs],
        figures=figures(),
    output:
        layout.report(),
    log:
        layout.log("report"),
    benchmark:
        layout.benchmark("report")
    conda:
        CONDA
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config=plain(cfg),
        benchmarks=f"{cfg.results_dir}/benchmarks",
    message:
        "Writing {output}"
    script:
        "../workflow/scripts/report.py"
