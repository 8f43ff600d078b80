from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.tiles.folders.listing import list_tiles

    list_tiles(Path(snakemake.params.folder["root"]), Path(snakemake.output[0]), 2 * snakemake.threads)
