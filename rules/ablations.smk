# Table 3: the scores of the runs named ablation-*, as a target of their own.


rule ablations:
    input:
        lambda wildcards: tried_again()
        + [
            layout.score(model, size, pooling, task)
            for model, size in model_sizes()
            if model.startswith("ablation-")
            for pooling in cfg.evaluation.poolings
            for task in tasks
        ],
    message:
        "Scores of the ablation runs are complete"
