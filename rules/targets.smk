# What the whole workflow is asked for: scores, features and figures. No rules.


def model_sizes():
    return [(model, str(size)) for model in models for size in models[model].sizes]


def all_scores():
    return [
        layout.score(model, size, pooling, task)
        for model, size in model_sizes()
        for pooling in cfg.evaluation.poolings
        for task in tasks
    ]


def all_features():
    """The tables of features of whole slides; none unless models are named for it."""
    return [
        layout.features(model, cohort, "slides.tsv")
        for model in feature_models
        for cohort in cfg.cohorts
    ]


def own_models():
    """Models that the workflow makes itself: the ones it can look into."""
    return [model for model in models if models[model].source in ("run", "init")]


def compared_models():
    """Models whose embeddings are drawn beside each other: own ones, not those of the zoo."""
    kinds = ("run", "init", "weights", "random")
    return [model for model in models if models[model].source in kinds]


def figures():
    """Every figure of the report."""
    names = [f"curves-{run}.svg" for run in cfg.runs]
    names += [
        f"{kind}-{cohort}.png"
        for cohort in cfg.cohorts
        for kind in ("tiles", "stain", "tissue")
    ]
    names += ["gains-scores.svg"] if tasks and models else []
    names += ["pca-models.png"] if own_models() and cfg.cohorts else []
    if compared_models():
        names += [
            f"tsne-{task}.png"
            for task in tasks
            if tasks[task].kind in ("tile", "folder") and not tasks[task].variant_of
        ]
    return [layout.figure(name) for name in names]
