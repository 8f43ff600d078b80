from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.mil.command import join_tables

    join_tables([Path(table) for table in snakemake.input], Path(snakemake.output[0]))
