from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.config import Tiles, build
    from midnight.report.compose import draw_cohort

    tiles = build(Tiles, snakemake.params.tiles, "tiles")
    outputs = {kind: Path(path) for kind, path in snakemake.output.items()}
    draw_cohort(Path(snakemake.input.index), tiles, snakemake.wildcards.cohort, snakemake.params.seed, outputs)
