from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.demo.slides import write_slides

    params = snakemake.params
    write_slides(Path(snakemake.output.catalogue).parent, params.slides, params.size, params.seed)
