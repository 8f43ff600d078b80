from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.config import Tiles, build
    from midnight.tiles.predrawn.join import join_parts
    from midnight.tiles.predrawn.tileset import TileSet

    params = snakemake.params
    tile_set = TileSet.of(params.cohorts, build(Tiles, params.tiles, "tiles"), params.per_shard)
    indexes = {name: Path(index) for name, index in zip(params.cohorts, snakemake.input.indices, strict=True)}
    output = Path(snakemake.output[0])
    join_parts(tile_set, indexes, output.parent, [Path(part) for part in snakemake.input.parts], output)
