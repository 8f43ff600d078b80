from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.config import load_config
    from midnight.tissue.shard import segment_shard

    config = load_config(snakemake.config, "config")
    segment_shard(Path(snakemake.input.slides), config.tissue, Path(snakemake.output[0]))
