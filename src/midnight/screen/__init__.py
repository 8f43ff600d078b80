"""What a person sees of a run: Snakemake's events as one line each, the training's progress, the time that is left."""
