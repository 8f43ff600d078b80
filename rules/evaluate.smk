# Downstream evaluation: embeddings once per (model, input size), then every head and probe from them.


rule embed:
    input:
        model=lambda wildcards: model_files(wildcards.model),
        data=task_data(),
    output:
        expand(
            layout.embedding_index("{{model}}", "{{size}}", "{task}"),
            task=EMBEDDED,
        ),
    log:
        layout.log("embed", "{model}-{size}"),
    benchmark:
        layout.benchmark("embed", "{model}-{size}")
    conda:
        CONDA
    threads: max(1, cfg.evaluation.workers)
    resources:
        mem_mb=4000 if cfg.demo else 32_000,
        runtime=1440,
    params:
        model=lambda wildcards: model_params(wildcards.model),
        tasks=canonical(
            {name: registry.data_settings(tasks[name]) for name in EMBEDDED}
        ),
    message:
        "Embedding {wildcards.model} at {wildcards.size} px"
    script:
        "../workflow/scripts/embed.py"


rule score:
    input:
        model=lambda wildcards: model_files(wildcards.model),
        data=task_data(),
        embeddings=expand(
            layout.embedding_index("{{model}}", "{{size}}", "{task}"),
            task=EMBEDDED,
        ),
    output:
        expand(
            layout.score("{{model}}", "{{size}}", "{pooling}", "{task}"),
            pooling=cfg.evaluation.poolings,
            task=list(tasks),
        ),
    log:
        layout.log("score", "{model}-{size}"),
    benchmark:
        layout.benchmark("score", "{model}-{size}")
    conda:
        CONDA
    threads: 1 if cfg.demo else 8
    resources:
        mem_mb=4000 if cfg.demo else 32_000,
        runtime=2880,
    params:
        model=lambda wildcards: model_params(wildcards.model),
        tasks=settings(tasks),
        protocol=cfg.evaluation.protocol,
        data=cfg.data,
        seed=cfg.seed,
    message:
        "Scoring {wildcards.model} at {wildcards.size} px"
    script:
        "../workflow/scripts/score.py"
