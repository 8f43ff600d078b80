from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.config import load_config
    from midnight.slides.pin import pin_manifest

    config = load_config(snakemake.config, "config")
    cohort = snakemake.wildcards.cohort
    look = snakemake.params.cohort.get("look", "")
    pin_manifest(cohort, config.cohorts[cohort], config.gdc, Path(snakemake.output[0]), look)
