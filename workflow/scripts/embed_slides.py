from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.config import load_config
    from midnight.evaluate.registry import find_model
    from midnight.mil.command import embed_shard, make_job

    config = load_config(snakemake.config, "config")
    folder = Path(snakemake.input.model[0]).parent if snakemake.input.model else None
    model = find_model(snakemake.wildcards.model, config.evaluation.weights)
    job = make_job(model, folder, config.features, config.tissue, config.evaluation)
    embed_shard(Path(snakemake.input.tissue), job, Path(snakemake.output[0]))
