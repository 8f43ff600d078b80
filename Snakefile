# Midnight: slides in, report out.   snakemake --profile slurm all   |   make demo
from snakemake.utils import min_version

min_version("9.0")

if not workflow.configfiles:

    configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/params.smk"
include: "rules/handlers.smk"
include: "rules/shards.smk"
include: "rules/targets.smk"
include: "rules/tile_sets.smk"
include: "rules/demo.smk"
include: "rules/slides.smk"
include: "rules/tissue.smk"
include: "rules/tiles.smk"
include: "rules/tile_folders.smk"
include: "rules/train.smk"
include: "rules/prepare.smk"
include: "rules/evaluate.smk"
include: "rules/features.smk"
include: "rules/ablations.smk"
include: "rules/figures.smk"
include: "rules/report.smk"
include: "rules/summary.smk"


rule all:
    default_target: True
    input:
        lambda wildcards: [*tried_again(), *all_features(), layout.report()],


onstart:
    forget_failures()
    give_up_permanent_errors()
    know_slurm_ends()
    note_asked()
    start_services()


onsuccess:
    stop_services()
    print_summary(succeeded=True)


onerror:
    stop_services()
    report_failures()
    print_summary(succeeded=False)
