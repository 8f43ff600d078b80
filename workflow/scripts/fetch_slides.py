from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.config import load_config
    from midnight.slides.fetch import fetch_shard

    config = load_config(snakemake.config, "config")
    fetch_shard(
        manifest=Path(snakemake.input.manifest),
        shard=snakemake.wildcards.shard,
        shard_size=config.shard_size,
        cohort=config.cohorts[snakemake.wildcards.cohort],
        gdc=config.gdc,
        raw_dir=Path(snakemake.params.raw),
        shard_output=Path(snakemake.output.shard),
        slides_output=Path(snakemake.output.slides),
    )
