from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.config import Tiles, build
    from midnight.tiles.predrawn.draw import draw_job
    from midnight.tiles.predrawn.tileset import TileSet

    params = snakemake.params
    tile_set = TileSet.of(params.cohorts, build(Tiles, params.tiles, "tiles"), params.per_shard)
    indexes = {name: Path(index) for name, index in zip(params.cohorts, snakemake.input.indices, strict=True)}
    draw_job(
        tile_set=tile_set,
        indexes=indexes,
        folder=Path(snakemake.input.plan).parent,
        shards=params.shards,
        workers=snakemake.threads,
        plan=Path(snakemake.input.plan),
        output=Path(snakemake.output[0]),
    )
