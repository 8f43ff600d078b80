from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.tissue.index import join_shards
    from midnight.tissue.page import write_page

    index = Path(snakemake.output.index)
    join_shards([Path(shard) for shard in snakemake.input], index)
    write_page(index, Path(snakemake.output.page), snakemake.wildcards.cohort)
