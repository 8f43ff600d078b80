# The report's figures: curves, tiles, masks, patch tokens, embeddings, gains.


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
    params:
        weights=settings(cfg.evaluation.weights),
    message:
        "Drawing trained against random"
    script:
        "../workflow/scripts/draw_gains.py"
