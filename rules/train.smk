# Training runs. Checkpoints and metrics.jsonl are no declared outputs: Snakemake would delete them before a retry.
import signal

# Slurm's warning reaches every process of a job: only training answers it. What Snakemake starts ignores it too.
if not workflow.is_main_process:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)

for run in cfg.runs if workflow.is_main_process else ():
    if change := foreseen(run):
        logger.warning(f"midnight: {change}")


rule train:
    input:
        indices=lambda wildcards: [
            layout.tissue_index(cohort) for cohort in cfg.runs[wildcards.run].cohorts
        ],
        # ancient: only the labels of the probe; a change of slides comes with the indices
        manifests=lambda wildcards: [
            ancient(layout.manifest(cohort))
            for cohort in cfg.runs[wildcards.run].cohorts
        ],
        tile_lists=lambda wildcards: [
            layout.tile_list(name) for name in cfg.runs[wildcards.run].tile_folders
        ],
        parent=lambda wildcards: parent_files(wildcards.run),
        tiles=lambda wildcards: drawn_tiles(wildcards.run),
    output:
        weights=layout.model("{run}", "teacher.safetensors"),
        model=layout.model("{run}", "model.json"),
    log:
        layout.log("train", "{run}"),
    benchmark:
        layout.benchmark("train", "{run}")
    # A run longer than its time limit goes on in the next job, from the checkpoint that the warning made it save.
    # Only the main process starts again: within a job there is no time left. As often
    # as it takes, as long as checkpoints are saved (ssl/launch/attempts.py).
    retries: 10_000 if workflow.is_main_process and not cfg.demo else 0
    conda:
        CONDA
    threads: workflow.cores if cfg.demo else 8
    resources:
        mem_mb=lambda wildcards: 4000 if cfg.demo else 200_000,
        runtime=lambda wildcards: 60 if cfg.demo else 10_080,
        gres=lambda wildcards: gpu_resources(wildcards.run)[0],
        nodes=lambda wildcards: gpu_resources(wildcards.run)[1],
        slurm_extra="--signal=USR1@120",
    params:
        recipe=lambda wildcards: training_params(wildcards.run),
        cohorts=lambda wildcards: canonical(
            cfg.runs[wildcards.run].cohorts | cfg.runs[wildcards.run].tile_folders
        ),
        data=cfg.data,
    message:
        "Training {wildcards.run}"
    script:
        "../workflow/scripts/train.py"


rule init_model:
    output:
        weights=layout.model("{model}", "teacher.safetensors"),
        model=layout.model("{model}", "model.json"),
    log:
        layout.log("init_model", "{model}"),
    benchmark:
        layout.benchmark("init_model", "{model}")
    wildcard_constraints:
        model="|".join(
            re.escape(name)
            for name in known_models
            if known_models[name].source == "init"
        )
        or "none",
    conda:
        CONDA
    resources:
        mem_mb=16_000,
        runtime=30,
    params:
        recipe=lambda wildcards: initial_params(wildcards.model),
        data=cfg.data,
    message:
        "Random init of {wildcards.model}"
    script:
        "../workflow/scripts/init_model.py"


ruleorder: init_model > train
