from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.atomic import write_text
    from midnight.config import load_config
    from midnight.slides.fetch import fetch_again

    came = fetch_again(
        shard_manifest=Path(snakemake.params.shard),
        table=Path(snakemake.params.slides),
        gdc=load_config(snakemake.config, "config").gdc,
        raw_dir=Path(snakemake.params.raw),
    )
    write_text(snakemake.output[0], f"{came} slides came\n")
