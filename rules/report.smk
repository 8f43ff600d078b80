# Tables and the page: from score records, tissue indices, figures and the published tables.


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
