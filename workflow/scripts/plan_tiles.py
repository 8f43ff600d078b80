from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.config import Draw, Tiles, build
    from midnight.tiles.predrawn.plan import write_plan
    from midnight.tiles.predrawn.tileset import TileSet

    params = snakemake.params
    tile_set = TileSet.of(params.cohorts, build(Tiles, params.tiles, "tiles"), params.draw["tiles_per_shard"])
    indexes = {name: Path(index) for name, index in zip(params.cohorts, snakemake.input.indices, strict=True)}
    write_plan(tile_set, indexes, build(Draw, params.draw, "draw"), Path(snakemake.output[0]))
