# Downstream data sets: checked, downloaded where no form is asked for, or one line that says what is missing and where
# to get it. First of all rules, so that it is said at the start, not after days of training, which goes on meanwhile.


rule prepare_task:
    output:
        layout.prepared("{task}"),
    log:
        layout.log("prepare_task", "{task}"),
    benchmark:
        layout.benchmark("prepare_task", "{task}")
    priority: 100
    conda:
        CONDA
    resources:
        mem_mb=4000,
        runtime=1440,
        downloads=1,
    params:
        root=cfg.evaluation.data_root,
        data=lambda wildcards: data_params(wildcards.task),
    message:
        "Preparing the data of {wildcards.task}"
    script:
        "../workflow/scripts/prepare_task.py"
